// A trial that is killed from outside, by the kernel for want of memory for instance, is lost to NNI. Preloaded into its
// manager, this starts such a trial again in the same directory, where it goes on from its checkpoint. CIFAR_RESTARTS
// tells the trial how often that was; one that is killed too often finds in CIFAR_GIVE_UP why it is to give up.
// Where one of several processes of a trial is killed, torchrun ends the others, and itself by a mere exit code.
const childProcess = require("child_process");
const fs = require("fs");
const path = require("path");
const words = require("./words.js");
const MOST = 5;

require("./when_loaded.js")("TrialProcess", (trial) => {
  const { spawn, kill, resolveStop } = trial;

  trial.spawn = function (options) {
    this.options = options;
    this.restarts = 0;
    return spawn.call(this, options);
  };

  trial.kill = function (timeout) {
    this.unwanted = true; // by the user, the assessor or the experiment's end
    return kill.call(this, timeout);
  };

  trial.resolveStop = function (event, code, signal, timestamp) {
    const killer = signal || (code && lostOneOfSeveral(this.options) ? "a signal to one of its processes" : null);
    const accident = killer && !this.unwanted && this.restarts < MOST && !this.stopped.settled;
    if (!accident) return resolveStop.call(this, event, code, signal, timestamp);
    if (event === "close") restart(this, killer); // comes after "exit"
  };
});

// Whether such a trial came to no result of its own: an error, or a wrong request, is one.
function lostOneOfSeveral({ command, outputDirectory }) {
  if (!/\btorchrun\b|\btorch\.distributed\.run\b/.test(command)) return false;
  try {
    return JSON.parse(fs.readFileSync(path.join(outputDirectory, "result.json"))).status === "interrupted";
  } catch {
    return true; // none was written
  }
}

function restart(trial, killer) {
  trial.restarts += 1;
  trial.log.warning(`killed by ${killer} from outside, start ${trial.restarts + 1} follows`);
  const { command, codeDirectory, outputDirectory } = trial.options;
  const env = { ...trial.buildEnv(trial.options), [words.RESTARTS]: String(trial.restarts) };
  if (trial.restarts === MOST) env[words.GIVE_UP] = `killed ${MOST} times, the last time by ${killer}`;
  const output = ["trial.stdout", "trial.stderr"].map((name) => fs.openSync(path.join(outputDirectory, name), "a"));
  const stdio = ["ignore", ...output];
  trial.proc = childProcess.spawn(command, { cwd: codeDirectory, env, stdio, shell: "/bin/bash" });
  output.forEach((file) => fs.closeSync(file));
  trial.proc.on("exit", (code, signal) => trial.resolveStop("exit", code, signal));
  trial.proc.on("close", (code, signal) => trial.resolveStop("close", code, signal));
  trial.proc.on("error", (error) => trial.handleError(error));
}
