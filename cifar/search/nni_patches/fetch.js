// Fetches what a trial left on another machine into the experiment, as if it had run here. Nothing but contents is
// believed of that machine: a name that could lead elsewhere is passed over, and so is a file beyond all measure. When it
// stops answering it is not waited for.
const fs = require("fs");
const path = require("path");

const LEFT_BY_TRIALS = ["params.json", "result.json", "validation.npz", "trial.log", "trial.stdout", "trial.stderr"];
const PLAIN_NAME = /^[A-Za-z0-9][\w.-]*$/;
const MOST_FILES = 100;
const MOST_BYTES = 2 ** 30;
const NO_SUCH_FILE = 2; // of SFTP

// `environment` is the trial's there: NNI's directory of the trials of one worker.
async function fetchOutput(client, environment, id) {
  const { experimentRoot } = global.nni.paths;
  const root = path.posix.dirname(path.posix.dirname(environment)); // of the experiment there
  const curves = `trials/${id}/output/tensorboard`; // where NNI's page looks
  const sftp = await answered((done) => client.sftp(done));
  const fetch = (from, to, isWanted) => fetchFiles(sftp, from, path.join(experimentRoot, to), isWanted);
  try {
    await fetch(`${root}/models`, "models", (name) => name.endsWith(`-${id}.safetensors`));
    await fetch(`${root}/${curves}`, curves, () => true);
    const trial = path.join("environments", "local-env", "trials", id);
    await fetch(`${environment}/trials/${id}`, trial, (name) => LEFT_BY_TRIALS.includes(name));
  } finally {
    sftp.end();
  }
}

async function fetchFiles(sftp, from, to, isWanted) {
  fs.mkdirSync(to, { recursive: true });
  const entries = await answered((done) => sftp.readdir(from, done)).catch(unlessMissing);
  const names = (entries || []).map((entry) => entry.filename);
  for (const name of names.filter((name) => PLAIN_NAME.test(name) && isWanted(name)).slice(0, MOST_FILES))
    await fetchFile(sftp, `${from}/${name}`, path.join(to, name)).catch(unlessMissing); // a better model took its place
}

async function fetchFile(sftp, from, to) {
  const temporary = path.join(path.dirname(to), `.${path.basename(to)}.part`);
  await answered((done, stillAnswers) => {
    const step = (_, __, bytes) => (bytes > MOST_BYTES ? done(new Error(`${from} has ${bytes} bytes`)) : stillAnswers());
    sftp.fastGet(from, temporary, { step }, done);
  });
  fs.renameSync(temporary, to);
}

function unlessMissing(error) {
  if (error.code !== NO_SUCH_FILE) throw error;
}

function answered(ask) {
  return new Promise((resolve, reject) => {
    let timer;
    const stillAnswers = () => {
      clearTimeout(timer);
      timer = setTimeout(() => reject(new Error("no answer")), fetchOutput.silence);
    };
    stillAnswers();
    ask((error, answer) => {
      clearTimeout(timer);
      return error ? reject(error) : resolve(answer);
    }, stillAnswers);
  });
}

fetchOutput.silence = 30000; // milliseconds
module.exports = fetchOutput;
