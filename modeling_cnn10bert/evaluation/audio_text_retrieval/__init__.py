"""The folder that `evaluate.load` opens; its one script stands alone, so that it can be published as it is."""
