// At the end NNI's manager waits until its tuner has ended by itself, whose threads look for work once in three seconds.
// Preloaded into it, this ends the tuner at once where tuner and assessor are NNI's own: they leave nothing to be done.
require("./when_loaded.js")("NNIManager", (manager) => {
  const stopExperimentTopHalf = manager.stopExperimentTopHalf;
  manager.stopExperimentTopHalf = function () {
    const stopped = stopExperimentTopHalf.call(this); // which waits, once it has told the tuner
    const { tuner, assessor, advisor } = this.config;
    const areNnisOwn = !advisor && [tuner, assessor].every((one) => !one || (one.name && !one.className));
    if (areNnisOwn && this.dispatcherPid > 0) kill(this.dispatcherPid);
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
