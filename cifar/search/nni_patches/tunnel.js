// How workers of NNI's remote training service reach its manager: through the SSH connection alone. Preloaded into the
// manager, this asks each worker for a port of its own 127.0.0.1, and hands on what connects there to the manager's port.
const net = require("net");
const whenLoaded = require("./when_loaded.js");

whenLoaded("Ssh", (ssh) => {
  const connect = ssh.connect;
  ssh.connect = async function () {
    await connect.call(this);
    this.forwardedPort = await forwardPort(this.client);
  };
});

whenLoaded("Worker", (worker) => {
  const launchTrialKeeperDaemon = worker.launchTrialKeeperDaemon;
  worker.launchTrialKeeperDaemon = function () {
    const url = new URL(this.channelUrl);
    url.host = `127.0.0.1:${this.ssh.forwardedPort}`;
    this.channelUrl = url.toString();
    return launchTrialKeeperDaemon.call(this);
  };
});

// A port of the worker's that leads to the manager; returns its number.
function forwardPort(client) {
  client.on("tcp connection", (_, accept) => {
    const inside = net.connect(Number(global.nni.args.port), "127.0.0.1");
    const outside = accept();
    inside.on("error", () => outside.end()).on("close", () => outside.end());
    outside.on("error", () => inside.destroy()).on("close", () => inside.destroy());
    inside.pipe(outside).pipe(inside);
  });
  return new Promise((resolve, reject) =>
    client.forwardIn("127.0.0.1", 0, (error, port) => (error ? reject(error) : resolve(port)))
  );
}
