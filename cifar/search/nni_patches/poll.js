// NNI's manager looks every half second for ended trials, and starts the next one at the look after: three quarters of a
// second in which a core or a GPU has nothing to do. Preloaded into it, this makes it look oftener. A look is cheap: it
// reads the states of the running trials from the manager's own memory.
const SECONDS = 0.05;

require("./when_loaded.js")("NNIManager", (manager) => {
  const initTrainingService = manager.initTrainingService;
  manager.initTrainingService = async function (...how) {
    const service = await initTrainingService.apply(this, how);
    this.pollInterval = Math.min(this.pollInterval, SECONDS);
    return service;
  };
});
