// What NNI forgets when an experiment goes on, mended by being preloaded into its manager (NODE_OPTIONS=--require):
// - which numbers are taken. It looks at the trials that were running; where none was, it starts again at 1, and two
//   trials share a number and a parameter id. It is made to look at all trials.
// - trials of an earlier resume that was cut off before it came to run them. It knows them as ADD_RESUMED, and resumes
//   only those that wait or run.
// - after the end, when a limit is raised in its page, to ask its tuner for more: it asks when a trial ends, and none runs.
// - that not every trial fits the search space: one added by hand, or from before the space was changed, makes the tuner
//   fail when it is told of it again. CIFAR_UNFIT_TRIALS names these; it is not told.
const words = require("./words.js");

require("./when_loaded.js")("NNIManager", (manager) => {
  const addRecoveredTrialJob = manager.addRecoveredTrialJob;
  const { exportData, resumeExperiment } = manager;
  const unfit = new Set((process.env[words.UNFIT_TRIALS] || "").split(","));

  manager.resumeExperiment = async function (...how) {
    this.exportData = async () => {
      const trials = JSON.parse(await exportData.call(this));
      return JSON.stringify(trials.filter((trial) => !unfit.has(trial.trialJobId)));
    };
    await resumeExperiment.apply(this, how).finally(() => delete this.exportData);
  };

  const updateExperimentProfile = manager.updateExperimentProfile;
  manager.updateExperimentProfile = async function (...how) {
    await updateExperimentProfile.apply(this, how);
    const { trialConcurrency } = this.experimentProfile.params;
    const missing = trialConcurrency - this.trialJobs.size - this.waitingTrials.length;
    if (this.status.status === "DONE" && missing > 0) this.trialConcurrencyChange += missing; // it asks for so many
  };

  manager.addRecoveredTrialJob = function (jobs) {
    const known = jobs.map((job) => (job.status === "ADD_RESUMED" ? { ...job, status: "WAITING" } : job));
    const recovered = addRecoveredTrialJob.call(this, known);
    const records = jobs.flatMap((job) => (job.hyperParameters || []).slice(0, 1).map((text) => JSON.parse(text)));
    this.trialDataForResume = JSON.stringify(records); // the tuner's next parameter id follows the highest of these
    this.experimentProfile.nextSequenceId = Math.max(-1, ...jobs.map((job) => job.sequenceId ?? -1)) + 1;
    return recovered;
  };
});
