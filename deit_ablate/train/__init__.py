"""The trainer: one recipe in, one outcome out. Start reading at ``loop.py``.

In a notebook: ``from deit_ablate import Recipe, train; outcome = train(Recipe())``, which shows its progress.
Only ``deit_ablate.worker`` imports this package, because it imports torch.
"""

import sys
from types import ModuleType
from typing import Any


class _Train(ModuleType):
    """A package that can be called: ``deit_ablate.train`` is a function to notebooks, and the trainer's folder."""

    def __call__(self, recipe: Any, **execution: Any) -> Any:
        """See ``notebook.train``."""
        from deit_ablate.train import notebook

        return notebook.train(recipe, **execution)


sys.modules[__name__].__class__ = _Train
