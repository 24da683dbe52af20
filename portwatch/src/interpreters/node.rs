//! Node.js, and programs that start programs in it.

use super::{Kind, Spec};

/// The facts about Node.js (`node --help`). V8's own options do not take the next argument.
pub const INTERPRETER: Spec = Spec {
    names: &["node", "nodejs", "iojs"],
    values: "-C -r --allow-fs-read --allow-fs-write --conditions --cpu-prof-dir \
             --cpu-prof-interval --cpu-prof-name --diagnostic-dir --disable-proto \
             --disable-warning --dns-result-order --env-file --env-file-if-exists \
             --es-module-specifier-resolution --experimental-default-type \
             --experimental-loader --experimental-sea-config --heap-prof-dir \
             --heap-prof-interval --heap-prof-name --heapsnapshot-near-heap-limit \
             --heapsnapshot-signal --icu-data-dir --import --input-type --loader \
             --localstorage-file --max-http-header-size \
             --network-family-autoselection-attempt-timeout --openssl-config \
             --redirect-warnings --report-dir --report-directory --report-filename \
             --report-signal --require --secure-heap --secure-heap-min --snapshot-blob \
             --test-concurrency --test-name-pattern --test-reporter \
             --test-reporter-destination --test-timeout --title --tls-cipher-list \
             --tls-keylog --trace-event-categories --trace-event-file-pattern \
             --unhandled-rejections --use-largepages --v8-pool-size --watch-path",
    runs: &[
        ("-e", Kind::Text),
        ("-p", Kind::Text),
        ("-pe", Kind::Text),
        ("--eval", Kind::Text),
        ("--print", Kind::Text),
        ("--run", Kind::Path),
    ],
    commands: &[("inspect", Some(Kind::Path))],
    runners: &[&NPM, &NPX, &PNPM, &YARN, &TSX, &TS_NODE, &NODEMON, &SERVE],
    ..Spec::PLAIN
};

/// `npm run SCRIPT`, `npm start`: a script of the package in its working directory.
const NPM: Spec = Spec {
    names: &["npm", "npm-cli.js"],
    values: "-w --loglevel --workspace",
    beside: &[("-C", Kind::Path), ("--prefix", Kind::Path)],
    commands: RUN,
    operand: Some(Kind::Name),
    here: true,
    ..Spec::PLAIN
};
const RUN: &[(&str, Option<Kind>)] =
    &[("run", Some(Kind::Name)), ("run-script", Some(Kind::Name)), ("exec", Some(Kind::Name))];

/// `npx COMMAND`.
const NPX: Spec = Spec {
    names: &["npx", "npx-cli.js"],
    values: "-p -w --package --workspace",
    runs: &[("-c", Kind::Text), ("--call", Kind::Text)],
    operand: Some(Kind::Name),
    here: true,
    ..Spec::PLAIN
};

/// `pnpm run SCRIPT`.
const PNPM: Spec = Spec {
    names: &["pnpm", "pnpm.cjs", "pnpm.mjs"],
    values: "-F --filter --loglevel --reporter",
    beside: &[("-C", Kind::Path), ("--dir", Kind::Path)],
    ..NPM
};

/// `yarn run SCRIPT`.
const YARN: Spec = Spec {
    names: &["yarn", "yarn.js", "yarnpkg"],
    values: "",
    beside: &[("--cwd", Kind::Path)],
    ..NPM
};

/// `tsx [watch] FILE`, with Node's own options before it.
const TSX: Spec = Spec {
    names: &["tsx"],
    values: "-C -r --conditions --env-file --exclude --import --include --loader --require \
             --tsconfig",
    runs: &[("-e", Kind::Text), ("--eval", Kind::Text)],
    commands: &[("watch", Some(Kind::Path))],
    ..Spec::PLAIN
};

/// `ts-node [OPTIONS] FILE`.
const TS_NODE: Spec = Spec {
    names: &["ts-node", "ts-node-esm", "ts-node-script", "ts-node-dev", "tsnd"],
    values: "-C -D -I -O -P -r --compiler --compilerOptions --cwd --ignore --ignoreDiagnostics \
             --project --require --scopeDir",
    runs: &[("-e", Kind::Text), ("--eval", Kind::Text)],
    ..Spec::PLAIN
};

/// `nodemon [OPTIONS] FILE`.
const NODEMON: Spec = Spec {
    names: &["nodemon", "nodemon.js"],
    values: "-d -e -i -r -s -w --config --cwd --delay --ext --ignore --require --signal --watch",
    runs: &[("-x", Kind::Text), ("--exec", Kind::Text)],
    here: true,
    ..Spec::PLAIN
};

/// Servers for the files in a directory, which are installed globally.
const SERVE: Spec = Spec {
    names: &["serve", "http-server", "live-server", "json-server", "ng"],
    values: "-a -c -l -p -P --config --host --listen --port --proxy",
    here: true,
    ..Spec::PLAIN
};

#[cfg(test)]
mod tests {
    use crate::interpreters::tests::check;

    #[test]
    fn its_options_end_at_what_it_runs() {
        check(&[
            ("node|server.js", "path server.js"),
            ("nodejs|/srv/shop/server.js|--port|80", "path /srv/shop/server.js"),
            ("node|--max-old-space-size=4096|server.js", "path server.js"),
            ("node|-r|dotenv/config|server.js", "path server.js"),
            ("node|--require|./tracing.js|--inspect=0.0.0.0:9229|dist/main", "path dist/main"),
            ("node|--import|tsx|src/index.ts", "path src/index.ts"),
            ("node|--import=file:///app/loader.mjs|server.ts", "path server.ts"),
            ("node|--env-file|.env|--watch|server.js", "path server.js"),
            ("node|--env-file=.env|server.js", "path server.js"),
            ("node|--title|shop|server.js", "path server.js"),
            ("node|--enable-source-maps|--experimental-vm-modules|.", "path ."),
            ("node|-e|require('http')|x", "text require('http')"),
            ("node|-pe|1", "text 1"),
            ("node|--run|start", "path start"),
            ("node|inspect|server.js", "path server.js"),
            ("node|--|server.js", "path server.js"),
            ("node|-", ""),
            ("node|--inspect", ""),
        ]);
    }

    #[test]
    fn a_runner_runs_an_application() {
        check(&[
            ("node|/usr/bin/npm|start", "name npm + name start + path ."),
            (
                "node|/usr/lib/node_modules/npm/bin/npm-cli.js|run|dev",
                "name npm + name dev + path .",
            ),
            (
                "node|/usr/bin/npm|--prefix|/srv/shop|start",
                "name npm + path /srv/shop + name start",
            ),
            ("node|/usr/bin/npx|serve|dist", "name npx + name serve + path ."),
            ("node|/usr/bin/yarn|--cwd|/srv/shop|run|dev", "name yarn + path /srv/shop + name dev"),
            ("node|/usr/bin/pnpm|-C|/srv/shop|dev", "name pnpm + path /srv/shop + name dev"),
            (
                "node|/usr/bin/tsx|watch|--env-file|.env|src/server.ts",
                "name tsx + path src/server.ts",
            ),
            ("node|/usr/bin/ts-node|-P|tsconfig.json|a.ts", "name ts-node + path a.ts"),
            ("node|/usr/bin/nodemon|--watch|src|server.js", "name nodemon + path server.js"),
            ("node|/usr/bin/nodemon", "name nodemon + path ."),
            ("node|/usr/local/bin/http-server|-p|8080", "name serve + path ."),
            ("node|/usr/local/bin/serve|-l|8080|dist", "name serve + path dist"),
            ("node|/srv/shop/node_modules/.bin/vite", "path /srv/shop/node_modules/.bin/vite"),
        ]);
    }
}
