// whenLoaded(name, correct) hands a class of NNI's manager to `correct` as soon as the module that exports it is loaded.
const Module = require("module");
const wanted = new Map();
const load = Module._load;
Module._load = function (...args) {
  const loaded = load.apply(this, args);
  for (const [name, correct] of wanted) {
    if (loaded && Object.hasOwn(loaded, name) && loaded[name]) {
      wanted.delete(name);
      correct(loaded[name].prototype);
    }
  }
  return loaded;
};

module.exports = (name, correct) => wanted.set(name, correct);
