// NNI's web server does what it is asked, whoever asks. Preloaded into its manager, this refuses what neither its page
// nor its tuner and trials ever ask: what a foreign web page sends through the user's browser, paths that lead out of a
// trial's directory, and a second configuration, which the next resume would run.
const http = require("http");
const net = require("net");
const os = require("os");
const words = require("./words.js");

// What browsers and programs send. The server would end a path at a number sign or a strange blank, and read on elsewhere.
const PLAIN_TARGET = /^\/[!"$-~]*$/;
const SITES = [undefined, "same-origin", "none"]; // Sec-Fetch-Site of programs, of the page itself, of an address typed in
const ownHost = process.env[words.HOST] || "127.0.0.1";
let configured = false;

function refusal(request) {
  const { method, headers } = request;
  if (!PLAIN_TARGET.test(request.url)) return "the path is not plain";
  const path = decoded(request.url.split("?")[0]); // split first: a decoded question mark belongs to the path
  const site = headers["sec-fetch-site"];
  if (!isOwn((headers.host || "").replace(/:\d+$/, "").toLowerCase()))
    return "this server is not known by that name"; // a foreign name may be made to lead here
  if (!SITES.includes(site) && !(method === "GET" && headers["sec-fetch-mode"] === "navigate"))
    return "another site's page may not ask this";
  if (!site && headers.origin && headers.origin.split("://")[1] !== headers.host)
    return "another site's page may not ask this";
  if (path === null || path.split(/[/\\]/).includes("..")) return "the path leads elsewhere";
  if (method === "PUT" && path.endsWith("/experiment/cluster-metadata")) return "this would end the experiment";
  if (method === "POST" && path.endsWith("/nni/experiment")) {
    if (configured) return "the experiment has its configuration";
    configured = true;
  }
  return null;
}

// Whether this machine is meant by a name in a request. An address cannot be made to lead elsewhere.
function isOwn(name) {
  if (["localhost", "127.0.0.1", "[::1]", ownHost].includes(name)) return true;
  return ownHost !== "127.0.0.1" && (name === os.hostname().toLowerCase() || net.isIP(name.replace(/^\[|\]$/g, "")) > 0);
}

// As the server understands it, to which letters' cases and slashes at the end mean nothing; null where it means nothing.
function decoded(path) {
  try {
    return decodeURIComponent(path).toLowerCase().replace(/\/+$/, "");
  } catch {
    return null;
  }
}

if (process.argv.includes("--experiment-id")) {
  const emit = http.Server.prototype.emit;
  http.Server.prototype.emit = function (event, request, answer) {
    const reason = ["request", "upgrade"].includes(event) ? refusal(request) : null;
    if (event === "request") answer.setHeader("X-Frame-Options", "SAMEORIGIN"); // no foreign page may lay its own over it
    if (!reason) return emit.apply(this, arguments);
    if (event === "upgrade") return answer.destroy(); // a socket
    answer.writeHead(403, { "Content-Type": "text/plain" }).end(`${reason}\n`);
    return true;
  };
}

// It takes anything for a trial's parameters, also what no trial could be given.
require("./when_loaded.js")("NNIManager", (manager) => {
  const addCustomizedTrialJob = manager.addCustomizedTrialJob;
  manager.addCustomizedTrialJob = async function (text) {
    const parameters = JSON.parse(text);
    const isObject = parameters !== null && typeof parameters === "object" && !Array.isArray(parameters);
    if (!isObject || !Object.keys(parameters).length) throw new Error("parameters must be an object with names and values");
    return addCustomizedTrialJob.call(this, text);
  };
});

// It makes a folder for the curves of each trial that it is asked for, wherever its name leads.
require("./when_loaded.js")("NNITensorboardManager", (manager) => {
  const start = manager.startTensorboardTask;
  manager.startTensorboardTask = async function (wanted) {
    if (!/^[A-Za-z0-9]+(,[A-Za-z0-9]+)*$/.test(wanted.trials)) throw new Error("trials must be named by their ids");
    return start.call(this, wanted);
  };
});
