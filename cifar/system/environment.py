"""The environment variables by which the processes of this project tell each other things.

nni_patches/words.js repeats the variables that NNI's manager reads and sets; a test compares the two.
"""

from __future__ import annotations

DATA = "CIFAR_DATA"  # the data of trials whose command names none
PREPARED = "CIFAR_PREPARED"  # the decoded images of a search: fingerprint and place in the cache
CACHE = "CIFAR_CACHE"  # the user's choice of a place for it
VISIBLE_GPUS = "CIFAR_VISIBLE_GPUS"  # CUDA_VISIBLE_DEVICES as the user set it, before a process chose one of them

# To NNI's manager:
HOST = "CIFAR_NNI_HOST"  # the address that it listens on
UNFIT_TRIALS = "CIFAR_UNFIT_TRIALS"  # ids of trials that its tuner shall not hear of at a resume
HOST_KEYS = "CIFAR_HOST_KEYS"  # JSON: "host:port" -> the keys that it may trust there
WORKER_PATCHES = "CIFAR_WORKER_PATCHES"  # JSON: "host:port" -> the directory of nni_patches there

# From NNI's manager to a trial:
RESTARTS = "CIFAR_RESTARTS"  # how often it has started the trial again
GIVE_UP = "CIFAR_GIVE_UP"  # why the trial, killed too often, shall not begin

# Of warm starts, see cifar/trials/warm_start.py:
WARM = "CIFAR_WARM"  # the experiment whose trials this process forks
COLD = "CIFAR_COLD"  # set: trials import everything themselves, to compare with
