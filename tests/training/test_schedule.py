"""Learning rates over a training."""

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR

from modeling_cnn10bert.training.arguments import SCHEDULES, WITHOUT_WARMUP
from modeling_cnn10bert.training.schedule import create_schedule


def _rates(name, total_steps, warmup_steps=0, steps_per_epoch=10, rates=(1e-4,)):
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    optimizer = torch.optim.AdamW(groups)
    schedule = create_schedule(
        name, optimizer, total_steps, steps_per_epoch, warmup_steps, decay_epochs=10, decay_factor=3.0
    )
    found = []
    for _ in range(total_steps):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return found


def test_the_step_decay_divides_by_three_every_ten_epochs():
    rates = [rate for (rate,) in _rates("step", 500)]  # 50 epochs of 10 steps
    expected = [1e-4 / 3**drop for drop in range(5) for _ in range(100)]
    assert rates == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("total", "warmup"), [(100, 15), (100, 29), (37, 5), (1000, 1), (20, 10)])
def test_one_cycle_is_the_one_of_torch(total, warmup):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    # torch reaches the top at step pct_start * total - 1
    reference = OneCycleLR(
        optimizer, max_lr=1e-3, total_steps=total, pct_start=(warmup + 1) / total, cycle_momentum=False
    )
    expected = []
    for step in range(total):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < total - 1:
            reference.step()
    found = [rate for (rate,) in _rates("one_cycle", total, warmup, rates=(1e-3,))]
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("warmup", [0, 1, 5])
@pytest.mark.parametrize("total", [1, 2, 3, 4, 5])
def test_one_cycle_manages_a_training_of_a_few_steps(total, warmup):
    rates = [rate for (rate,) in _rates("one_cycle", total, min(warmup, total))]
    assert all(0 < rate <= 1e-4 for rate in rates)


@pytest.mark.parametrize("name", ["step", "one_cycle", "linear", "cosine"])
def test_every_group_keeps_its_own_rate(name):
    for first, second in _rates(name, 60, 6, steps_per_epoch=2, rates=(1e-3, 2e-5)):
        assert second == pytest.approx(first / 50, rel=1e-12)


def test_a_name_that_nobody_knows_is_an_error():
    with pytest.raises(ValueError, match="stairs"):
        _rates("stairs", 10)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_that_the_arguments_know_runs_to_its_end(name):
    rates = [rate for (rate,) in _rates(name, total_steps=30, warmup_steps=0 if name in WITHOUT_WARMUP else 5)]
    assert max(rates) == pytest.approx(1e-4) and all(rate >= 0 for rate in rates)
    assert (rates[0] < rates[5]) == (name not in WITHOUT_WARMUP)
