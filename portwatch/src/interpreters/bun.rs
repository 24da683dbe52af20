//! Bun.

use super::{Kind, Spec};

/// The facts about Bun (`bun --help`). `bun dev` runs a script of the package in its working
/// directory, as `bun run dev` does.
pub const INTERPRETER: Spec = Spec {
    names: &["bun", "bunx"],
    values: "-F -d -l -r -u --conditions --define --env-file --extension-order --filter \
             --import --install --loader --main-fields --origin --port --preload --require \
             --shell --tsconfig-override",
    runs: &[
        ("-e", Kind::Text),
        ("-p", Kind::Text),
        ("--eval", Kind::Text),
        ("--print", Kind::Text),
    ],
    beside: &[("--cwd", Kind::Path)],
    commands: &[
        ("run", Some(Kind::Path)),
        ("test", Some(Kind::Path)),
        ("x", Some(Kind::Name)),
        ("exec", Some(Kind::Text)),
        ("repl", None),
    ],
    ..Spec::PLAIN
};

#[cfg(test)]
mod tests {
    use crate::interpreters::tests::check;

    #[test]
    fn its_options_end_at_what_it_runs() {
        check(&[
            ("bun|server.ts", "path server.ts"),
            ("bun|run|--hot|server.ts", "path server.ts"),
            ("bun|--port|80|run|dev", "path dev"),
            ("bun|dev", "path dev"),
            ("bun|--preload|./a.ts|server.ts", "path server.ts"),
            ("bun|--cwd|/srv/shop|start", "path /srv/shop + path start"),
            ("bun|x|serve|dist", "name serve"),
            ("bun|-e|Bun.serve({})", "text Bun.serve({})"),
        ]);
    }
}
