// NNI's manager keeps both output files of every trial open for ever, and can open no more after some hundred trials.
// Preloaded into it, this closes what it has opened for another program as soon as that program has it.
const childProcess = require("child_process");
const fs = require("fs");
const spawn = childProcess.spawn;
childProcess.spawn = function (...call) {
  const started = spawn.apply(this, call);
  const { stdio } = call[call.length - 1] || {};
  if (Array.isArray(stdio)) stdio.filter((file) => file instanceof fs.WriteStream).forEach((file) => file.destroy());
  return started;
};
