"""What `test_two_processes.py` starts as two processes: writes what each of them computed to FOLDER/rank<n>.pt."""

import sys
from pathlib import Path

import torch
from torch import distributed

from modeling_cnn10bert import CNN10BertModel
from modeling_cnn10bert.errors import RecipeError
from modeling_cnn10bert.training.arguments import RetrievalTrainingArguments
from modeling_cnn10bert.training.build import build_trainer
from modeling_cnn10bert.training.recipe import parse_recipe
from modeling_cnn10bert.training.trainer import RetrievalTrainer


def gradients(case: Path, chunk: int | None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss and gradients of this process's half of a batch, as a training step computes them."""
    model = CNN10BertModel.from_pretrained(case / "model")
    inputs = torch.load(case / "inputs.pt")
    arguments = RetrievalTrainingArguments(
        output_dir=case / "out",
        total_train_batch_size=8,
        contrastive_cache_chunk=chunk,
        equal_captions_are_positives="caption_keys" in inputs,
        use_cpu=True,
    )
    trainer = RetrievalTrainer(model=model, args=arguments)
    parallel = trainer.accelerator.prepare(trainer._wrap_model(model)).eval()
    parallel.train = lambda mode=True: parallel  # statistics would be those of a half, or of a chunk
    trainer.current_gradient_accumulation_steps = 1
    half = {name: value.chunk(2)[distributed.get_rank()] for name, value in inputs.items()}
    loss = trainer.training_step(parallel, half)
    return loss, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def augmented_batches(recipe: str) -> list[list[dict[str, torch.Tensor]]]:
    """The first two batches of this process in each of two epochs."""
    trainer, _ = build_trainer(*parse_recipe([recipe]))
    loader, batches = trainer.get_train_dataloader(), []
    for number in range(2):
        trainer.epoch.set(number)
        batches.append([batch for batch, _ in zip(loader, range(2), strict=False)])
    return batches


def main(folder: Path, recipe: str) -> None:
    cases = sorted(folder.glob("case-*"))
    results = {"gradients": {(case.name, chunk): gradients(case, chunk) for case in cases for chunk in (None, 3)}}
    results["batches"] = augmented_batches(recipe)
    results["world_size"] = distributed.get_world_size()
    try:
        parse_recipe([recipe, "--total_train_batch_size", "31"])
    except RecipeError as error:
        results["error"] = str(error)
    torch.save(results, folder / f"rank{distributed.get_rank()}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
