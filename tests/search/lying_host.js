// A host's SFTP server, of NNI's own ssh2, that lists and sends what its argument says, and what remote trials' fetching
// makes of it: `node lying_host.js NNI_NODE FETCH_JS EXPERIMENT BEHAVIOUR` prints "fetched", or the error.
const [, , nniNode, fetchPath, experimentRoot, behaviour] = process.argv;
const { generateKeyPairSync } = require("crypto");
const { Client, Server, utils } = require(`${nniNode}/node_modules/ssh2`);
const fetchOutput = require(fetchPath);
const { NO_SUCH_FILE, EOF, OK, FAILURE } = utils.sftp.STATUS_CODE;
const SENT = Buffer.from("what a trial left");
const HUGE = 2 ** 40;

function listed(directory) {
  if (directory.endsWith("/tensorboard"))
    return behaviour === "climbs" ? ["/../../../../climbed", "..", ".hidden", "events.out.1"] : ["events.out.1"];
  if (directory.endsWith("/models")) return behaviour === "climbs" ? ["x/../../../climbed-abcde.safetensors", "0.9-abcde.safetensors"] : [];
  return ["result.json", "authorized_keys"];
}

function serve(sftp) {
  const lists = new Map();
  const size = behaviour === "swells" ? HUGE : SENT.length;
  sftp.on("OPENDIR", (id, directory) => {
    if (behaviour === "fails") return sftp.status(id, FAILURE);
    if (behaviour === "lacks") return sftp.status(id, NO_SUCH_FILE);
    if (behaviour === "stalls") return;
    const handle = Buffer.from(String(lists.size));
    lists.set(String(handle), listed(directory));
    sftp.handle(id, handle);
  });
  sftp.on("READDIR", (id, handle) => {
    const names = lists.get(String(handle));
    lists.set(String(handle), []);
    if (!names.length) return sftp.status(id, EOF);
    sftp.name(id, names.map((filename) => ({ filename, longname: filename, attrs: {} })));
  });
  sftp.on("OPEN", (id) => sftp.handle(id, Buffer.from("file")));
  for (const question of ["FSTAT", "STAT"]) sftp.on(question, (id) => sftp.attrs(id, { size, mode: 0o100644 }));
  sftp.on("READ", (id, _, at, length) => {
    if (behaviour === "swells") return sftp.data(id, Buffer.alloc(length));
    return at < SENT.length ? sftp.data(id, SENT.subarray(at, at + length)) : sftp.status(id, EOF);
  });
  sftp.on("CLOSE", (id) => sftp.status(id, OK));
}

global.nni = { paths: { experimentRoot } };
fetchOutput.silence = 1000;
// Not of ssh2's own making: about one in 300 of those it cannot read again.
const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
const hostKey = privateKey.export({ type: "sec1", format: "pem" });
const server = new Server({ hostKeys: [hostKey] }, (client) => {
  client.on("error", () => {}).on("authentication", (attempt) => attempt.accept());
  client.on("session", (accept) => accept().on("sftp", (acceptSftp) => serve(acceptSftp())));
});
server.listen(0, "127.0.0.1", () => {
  const client = new Client();
  client.on("ready", async () => {
    console.log(await fetchOutput(client, "/home/nni/EXP/environments/worker1", "abcde").then(() => "fetched", String));
    process.exit();
  });
  client.connect({ host: "127.0.0.1", port: server.address().port, username: "me", password: "x" });
});
