// Whom NNI's manager trusts on other machines. Its SSH client would trust whatever answers; preloaded into it, this lets it
// trust the known keys of each host alone, which CIFAR_HOST_KEYS holds. A connection that falls silent counts as lost
// after fifteen seconds.
const whenLoaded = require("./when_loaded.js");
const words = require("./words.js");

const KEYS = JSON.parse(process.env[words.HOST_KEYS] || "{}"); // "host:port" -> ["ssh-ed25519 AAAA...", ...]
const OPEN_TO_TERRAPIN = "chacha20-poly1305@openssh.com"; // in this version of ssh2, CVE-2023-48795
const SILENCE = { keepaliveInterval: 5000, keepaliveCountMax: 3 };

whenLoaded("Ssh", () => {
  const { Client } = require(require.resolve("ssh2", { paths: [process.argv[1]] })); // of NNI's own modules
  const open = Client.prototype.connect;
  Client.prototype.connect = function (options) {
    this.on("error", () => this.end()); // the channel over it notices; unheard, it would end the manager
    return open.call(this, { ...options, ...SILENCE, ...trusted(options) });
  };
});

function trusted(config) {
  const known = KEYS[`${config.host}:${config.port}`];
  if (!known) return {}; // plain nnictl, which trusts whatever answers
  const [types, keys] = [0, 1].map((part) => known.map((line) => line.split(" ")[part]));
  const algorithms = { serverHostKey: serverKeyTypes(types), cipher: { remove: [OPEN_TO_TERRAPIN] } };
  return { algorithms, hostVerifier: (key) => keys.includes(key.toString("base64")) };
}

function serverKeyTypes(types) {
  return [...new Set(types.flatMap((type) => (type === "ssh-rsa" ? ["rsa-sha2-512", "rsa-sha2-256"] : [type])))];
}
