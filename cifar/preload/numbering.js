// When NNI resumes an experiment, it looks at the trials that were running to see which numbers are taken. Where none
// was, it starts again at 1, and two trials share a number and a parameter id. Preloaded into NNI's manager
// (NODE_OPTIONS=--require), this makes it look at all trials.
require("./when_loaded.js")("NNIManager", (manager) => {
  const addRecoveredTrialJob = manager.addRecoveredTrialJob;
  manager.addRecoveredTrialJob = function (jobs) {
    const recovered = addRecoveredTrialJob.call(this, jobs);
    const records = jobs.flatMap((job) => (job.hyperParameters || []).slice(0, 1).map((text) => JSON.parse(text)));
    this.trialDataForResume = JSON.stringify(records); // the tuner's next parameter id follows the highest of these
    this.experimentProfile.nextSequenceId = Math.max(-1, ...jobs.map((job) => job.sequenceId ?? -1)) + 1;
    return recovered;
  };
});
