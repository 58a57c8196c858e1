// What NNI's remote training service loses: trials of a worker that is lost, and what trials leave there. Preloaded into its
// manager, with fetch.js:
// - Each trial starts on the worker that has the fewest.
// - Trials of a lost worker run again on another one; or on the same one where no other is left and it comes back. What it
//   still ran is ended before anything starts there again.
// - What a trial leaves is fetched into the experiment before it counts as ended.
// - Nothing is installed on a worker that nobody asked for. Its own server, too, listens on 127.0.0.1, and starts a killed
//   trial again: these patches are preloaded into it from where the worker has them, which CIFAR_WORKER_PATCHES says.
const path = require("path");
const fetchOutput = require("./fetch.js");
const whenLoaded = require("./when_loaded.js");
const words = require("./words.js");

const PATCHES = JSON.parse(process.env[words.WORKER_PATCHES] || "{}"); // "host:port" -> directory
const ON_WORKERS = ["handles.js", "loopback.js", "restarts.js"];

const lostOnce = new Set(); // names

const nameOf = (config) => `${config.host}:${config.port}`;

whenLoaded("Ssh", (ssh) => {
  const run = ssh.run;
  ssh.run = async function (command) {
    if (command.endsWith("-m pip install nni --upgrade")) return "";
    if (!command.includes(".launch_trial_keeper ")) return run.call(this, command);
    if (lostOnce.has(nameOf(this.config))) await run.call(this, endingLeftovers(this.config));
    return run.call(this, withPatches(command, PATCHES[nameOf(this.config)]));
  };
});

function withPatches(command, directory) {
  if (!directory) return command;
  const required = ON_WORKERS.map((name) => `--require "${directory}/${name}"`).join(" ");
  return `NODE_OPTIONS='${required}' ${command}`;
}

function endingLeftovers({ pythonPath }) {
  const experiment = JSON.stringify({ experiment: global.nni.args.experimentId });
  return `"${pythonPath}/python" -m cifar.worker end '${experiment}'`;
}

whenLoaded("V3asV1", (service) => {
  const schedule = service.schedule;
  service.schedule = function () {
    return this.v3.leastBusy ? this.v3.leastBusy() : schedule.call(this); // NNI takes turns, whoever is still at work
  };
});

whenLoaded("RemoteTrainingServiceV3", (service) => {
  const { createTrial, launchWorker, onTrialEnd, restartWorker, start, stopTrial, stopWorker } = service;
  service.submissions = new Map(); // of trials that have not ended; a manager has one such service
  service.orphans = []; // of workers that are lost, until they run again
  service.unfetched = new Set(); // trials whose files could not be had once

  service.start = async function () {
    const environments = await start.call(this);
    this.workers.forEach((worker) => (worker.ready = true));
    return environments;
  };

  service.leastBusy = function () {
    const trials = (worker) => [...this.submissions.keys()].filter((id) => this.workersByTrial.get(id) === worker).length;
    const [first] = this.workers.filter((worker) => worker.ready).sort((one, other) => trials(one) - trials(other));
    return first ? first.envId : null;
  };

  service.createTrial = async function (environment, ...submission) {
    const worker = this.workersByEnv.get(environment);
    const id = await unlessLost(worker, createTrial.call(this, environment, ...submission));
    if (id) this.submissions.set(id, submission);
    return id;
  };

  service.stopTrial = function (id) {
    return unlessLost(this.workersByTrial.get(id), stopTrial.call(this, id));
  };

  service.onTrialEnd = function (callback) {
    onTrialEnd.call(this, async (id, ...how) => {
      const worker = this.workersByTrial.get(id);
      if (worker && !(await this.fetch(worker, id))) return; // it runs again
      this.submissions.delete(id);
      callback(id, ...how);
    });
  };

  // Whether a trial has ended with that. A worker that cannot give what it left counts as lost, but not twice for the same
  // trial: that ends as it is.
  service.fetch = async function (worker, id) {
    try {
      await fetchOutput(worker.ssh.client, path.dirname(worker.uploadDir), id);
      return true;
    } catch (error) {
      this.log.error(`what trial ${id} left on ${nameOf(worker.config)} cannot be fetched:`, error);
      if (!this.workers.includes(worker)) return false;
      if (this.unfetched.has(id)) return true;
      this.unfetched.add(id);
      this.restartWorker(worker);
      return false;
    }
  };

  // All trials that it ever had would be said to have ended now. Those that have ended before stay as they are, and the
  // others run again.
  service.stopWorker = function (lost, ...rest) {
    const had = [...this.workersByTrial].filter(([, worker]) => worker === lost).map(([id]) => id);
    had.forEach((id) => this.workersByTrial.delete(id));
    stopWorker.call(this, lost, ...rest);
    lost.ssh.disconnect(); // what still runs there is heard no more
    lost.lose?.(null);
    lostOnce.add(nameOf(lost.config));
    const orphans = had.filter((id) => this.submissions.has(id));
    this.orphans.push(...orphans);
    const left = this.workers.filter((worker) => worker.ready).length;
    this.log.error(`host ${nameOf(lost.config)} is lost, with ${orphans.length} trials; hosts left: ${left}`);
    runOrphans(this);
  };

  // NNI tries once, and at once, to have it back.
  service.restartWorker = async function (lost) {
    await restartWorker.call(this, lost);
    const found = this.workers.find((worker) => worker.config === lost.config);
    if (found) {
      found.ready = true;
      this.log.warning(`host ${nameOf(lost.config)} is back`);
    }
    if (!this.workers.length) this.log.error("no host is left");
    runOrphans(this);
  };

  service.launchWorker = function (config) {
    return launchWorker.call(this, config).catch((error) => {
      this.workers = this.workers.filter((worker) => worker.config !== config); // NNI would send trials there
      throw error;
    });
  };
});

// What a worker answers, or null where it is lost before: NNI would wait for ever.
function unlessLost(worker, answer) {
  if (!worker) return answer;
  worker.lost = worker.lost || new Promise((resolve) => (worker.lose = resolve));
  return Promise.race([answer, worker.lost]);
}

function runOrphans(service) {
  if (service.leastBusy()) service.orphans.splice(0).forEach((id) => runAgain(service, id));
}

async function runAgain(service, id) {
  const environment = service.leastBusy();
  const worker = service.workersByEnv.get(environment);
  service.workersByTrial.set(id, worker); // counts at once
  service.log.warning(`trial ${id} runs again on ${nameOf(worker.config)}`);
  const started = await service.createTrial(environment, ...service.submissions.get(id)).catch(() => null);
  const isThere = service.workersByTrial.get(id) === worker; // else it was lost meanwhile, and the trial runs elsewhere
  if (!started && isThere) service.emitter.emit("trial_stop", id, Date.now(), null);
}
