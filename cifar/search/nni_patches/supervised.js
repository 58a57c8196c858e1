// Preloaded into NNI's manager, this makes it stop its trials and itself when the command that started it is gone,
// killed for instance: nothing is left running that nobody watches.
const parent = process.ppid;
if (process.argv.includes("--experiment-id")) {
  setInterval(() => {
    if (process.ppid !== parent) process.kill(process.pid, "SIGTERM");
  }, 1000).unref();
}
