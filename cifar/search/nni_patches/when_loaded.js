// whenLoaded(name, correct) hands a class of NNI's manager to `correct`, its prototype, as soon as the module that exports
// it is loaded; whenLoaded.exported hands over what is exported itself.
const Module = require("module");
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
