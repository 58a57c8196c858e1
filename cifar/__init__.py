"""Hyperparameter search for small image classifiers with NNI: CIFAR-10 first, then your own folder of pictures.

In a notebook: `from cifar import load_data, load_experiment, load_model, train` (docs/notebook.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cifar.notebook import load_data, load_experiment, load_model, train

__version__ = "0.2.0"
__all__ = ["__version__", "load_data", "load_experiment", "load_model", "train"]


def __getattr__(name: str) -> Any:
    """Of a notebook's names; imported at their first use, since PyTorch takes seconds that commands can do without."""
    if name not in __all__:
        raise AttributeError(f"module 'cifar' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("cifar.notebook"), name)
