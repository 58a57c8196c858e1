// Before the first trial NNI's manager asks a new Python what machine it is on, which imports all of NNI for the answer.
// Nobody reads it where trials run on the manager's own machine. Preloaded into it, this does without.
require("./when_loaded.js")("TrialKeeper", (keeper) => {
  const start = keeper.start;
  keeper.start = async function () {
    if (this.platform !== "local") return start.call(this);
    this.envInfo = { id: this.envId, type: "hot" };
    await Promise.all([this.scheduler.start(), this.channels.start()]);
    return this.envInfo;
  };
});
