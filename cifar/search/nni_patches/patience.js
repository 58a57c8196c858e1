// NNI's manager gives up where it only had to wait: on a busy machine for its tuner, which it gives ten seconds to start,
// and for its database, which another program may hold for a moment. Preloaded into it, this makes it wait.
const whenLoaded = require("./when_loaded.js");
const TUNER_SECONDS = 180;
const DATABASE_SECONDS = 60;

whenLoaded("SqlDB", (database) => {
  const init = database.init;
  database.init = function (...how) {
    const isFirst = this.db === undefined;
    const done = init.apply(this, how);
    if (isFirst) this.db.configure("busyTimeout", 1000 * DATABASE_SECONDS);
    return done;
  };
});

whenLoaded.exported("getTunerServer", (getTunerServer) => {
  const server = Object.getPrototypeOf(getTunerServer());
  server.init = function () {
    const late = () => this.connect.reject(new Error(`the tuner did not start within ${TUNER_SECONDS} seconds`));
    if (!this.connect.settled) setTimeout(() => this.connect.settled || late(), 1000 * TUNER_SECONDS).unref();
    return this.connect.promise;
  };
});
