// whenLoaded(name, correct) hands a class of NNI's manager to `correct`, its prototype, as soon as the module that exports
// it is loaded; whenLoaded.exported hands over what is exported itself. Where a class is not found NNI does not start: it
// would run without its correction, and nobody would know.
const Module = require("module");
const net = require("net");
const load = Module._load;
let wanted = [];
Module._load = function (...args) {
  const loaded = load.apply(this, args);
  const here = wanted.filter(([name]) => loaded && Object.hasOwn(loaded, name) && loaded[name]);
  wanted = wanted.filter((one) => !here.includes(one));
  here.forEach(([name, correct]) => correct(loaded[name]));
  return loaded;
};

module.exports = (name, correct) => wanted.push([name, (exported) => correct(exported.prototype)]);
module.exports.exported = (name, correct) => wanted.push([name, correct]);

function complaint() {
  const names = [...new Set(wanted.map(([name]) => name))];
  return `this NNI has no ${names.join(", ")}, which cifar/search/nni_patches corrects: nni==3.0 is needed`;
}

// The last of its classes are loaded together with the service that runs trials.
module.exports("NNIManager", (manager) => {
  const initTrainingService = manager.initTrainingService;
  manager.initTrainingService = async function (...how) {
    const service = await initTrainingService.apply(this, how);
    if (!wanted.length) return service;
    console.error(`Error: ${complaint()}`); // where the command that starts it looks for a reason
    throw new Error(complaint());
  };
});

// The manager itself is loaded before its server listens.
if (process.argv.includes("--experiment-id")) {
  const listen = net.Server.prototype.listen;
  net.Server.prototype.listen = function (...where) {
    if (!wanted.some(([name]) => name === "NNIManager")) return listen.apply(this, where);
    console.error(`Error: ${complaint()}`);
    return process.exit(1);
  };
}
