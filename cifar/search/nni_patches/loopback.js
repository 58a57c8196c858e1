// NNI's manager listens on every network interface, without a password. Preloaded into its node process
// (NODE_OPTIONS=--require), this makes each listen() that names no host listen on this machine alone, or on the
// address that CIFAR_NNI_HOST names.
const childProcess = require("child_process");
const net = require("net");
const words = require("./words.js");
const listen = net.Server.prototype.listen;
const host = process.env[words.HOST] || "127.0.0.1";
net.Server.prototype.listen = function (port, ...rest) {
  const namesNoHost = (typeof port === "number" || /^\d+$/.test(port)) && typeof rest[0] !== "string";
  return namesNoHost ? listen.call(this, port, host, ...rest) : listen.call(this, port, ...rest);
};

// TensorBoard, which a button in its web page starts, would listen everywhere too.
const spawn = childProcess.spawn;
childProcess.spawn = function (command, args, ...rest) {
  if (command !== "tensorboard") return spawn.call(this, command, args, ...rest);
  return spawn.call(this, command, args.map((arg) => arg.replace("--bind_all", `--host=${host}`)), ...rest);
};
