// NNI's tuner process hears of final results in one thread and of ended trials in another. Where it is busy with a proposal
// the end overtakes the result: TPE no longer knows the trial, raises, and the experiment is over. Preloaded into NNI's
// manager, this holds back the end of a trial that has a result until the tuner has answered a request that came after
// the result, or for some seconds where nothing is requested any more.
const PATIENCE = 30_000;

require("./when_loaded.js").exported("getTunerServer", (getTunerServer) => {
  const server = Object.getPrototypeOf(getTunerServer());
  const { sendCommand, onCommand } = server;

  server.sendCommand = function (type, content) {
    const order = (this.order ??= { requested: 0, answered: 0, withResult: new Set(), held: [] });
    const send = () => sendCommand.call(this, type, content);
    if (type === "ME") noteResult(order, JSON.parse(content));
    if (type === "TE") order.held.splice(0).forEach(({ timer }) => clearTimeout(timer)); // nobody listens any more
    if (type === "EN" && order.withResult.delete(JSON.parse(content).trial_job_id)) return hold(order, send);
    if (type === "GE") order.requested += Number(content);
    return send();
  };

  server.onCommand = function (listener) {
    onCommand.call(this, (type) => {
      const { order } = this;
      if (!order || !["TR", "NO"].includes(type)) return;
      order.answered += 1;
      order.held.filter(({ after }) => order.answered > after).forEach((one) => release(order, one));
    });
    onCommand.call(this, listener);
  };
});

function noteResult(order, { type, trial_job_id: trial }) {
  if (type === "FINAL") order.withResult.add(trial);
}

function hold(order, send) {
  const one = { after: Math.max(order.requested, order.answered), send }; // a resume is answered unasked
  one.timer = setTimeout(() => release(order, one), PATIENCE);
  order.held.push(one);
}

function release(order, one) {
  clearTimeout(one.timer);
  order.held = order.held.filter((other) => other !== one);
  one.send();
}
