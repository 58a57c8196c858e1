// The environment variables by which Python and these patches tell each other things: those of cifar/system/environment.py.
module.exports = {
  HOST: "CIFAR_NNI_HOST",
  UNFIT_TRIALS: "CIFAR_UNFIT_TRIALS",
  HOST_KEYS: "CIFAR_HOST_KEYS",
  WORKER_PATCHES: "CIFAR_WORKER_PATCHES",
  RESTARTS: "CIFAR_RESTARTS",
  GIVE_UP: "CIFAR_GIVE_UP",
};
