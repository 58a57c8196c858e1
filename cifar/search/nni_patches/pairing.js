// NNI hands parameters to trials in the order in which they ask, and records them in the order in which it submits them.
// Preloaded into its manager, this gives each trial its id before it starts, and what is submitted to that id alone: on
// whatever machine it runs, and also when it is killed, started again and asks once more.
const crypto = require("crypto");

require("./when_loaded.js")("V3asV1", (service) => {
  const submitTrialJob = service.submitTrialJob;
  service.submitTrialJob = function (form) {
    pair(this);
    this.submitted = form.hyperParameters.value; // the manager waits for each submission before the next
    return submitTrialJob.call(this, form);
  };
});

function pair(service) {
  if (service.submitted !== undefined) return;
  service.allocatedParameters.delete = () => false;
  const createTrial = service.v3.createTrial;
  service.v3.createTrial = function (environment, command, directory, number, id = newId()) {
    if (!service.allocatedParameters.has(id)) service.allocatedParameters.set(id, service.submitted);
    return createTrial.call(this, environment, command, directory, number, id);
  };
}

// Letters and digits, of which NNI's own ids have five.
function newId() {
  const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
  return Array.from({ length: 5 }, () => letters[crypto.randomInt(letters.length)]).join("");
}
