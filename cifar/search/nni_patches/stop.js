// At the end NNI's manager waits until its tuner has ended by itself, whose threads look for work once in three seconds.
// Preloaded into it, this ends the tuner at once where tuner and assessor are NNI's own or this project's: they leave
// nothing to be done.
require("./when_loaded.js")("NNIManager", (manager) => {
  const stopExperimentTopHalf = manager.stopExperimentTopHalf;
  manager.stopExperimentTopHalf = function () {
    const stopped = stopExperimentTopHalf.call(this); // which waits, once it has told the tuner
    const { tuner, assessor, advisor } = this.config;
    const isKnown = ({ name, className }) => (className ? className.startsWith("cifar.") : Boolean(name));
    const areKnown = !advisor && [tuner, assessor].every((one) => !one || isKnown(one));
    if (areKnown && this.dispatcherPid > 0) kill(this.dispatcherPid);
    return stopped;
  };
});

function kill(pid) {
  try {
    process.kill(pid);
  } catch {
    // it has ended
  }
}
