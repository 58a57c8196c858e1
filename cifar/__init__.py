"""Hyperparameter search for small image classifiers with NNI: CIFAR-10 first, then your own folder of pictures."""

__version__ = "0.2.0"
