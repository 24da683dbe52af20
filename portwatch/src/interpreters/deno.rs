//! Deno.

use super::{Kind, Spec};

/// The facts about Deno (`deno run --help`, `deno serve --help`). The permissions of an option
/// are joined to it, if there are any.
pub const INTERPRETER: Spec = Spec {
    names: &["deno"],
    values: "-L -c --cert --config --ext --host --import-map --location --log-level \
             --minimum-dependency-age --port --preload --seed",
    commands: &[
        ("run", Some(Kind::Path)),
        ("serve", Some(Kind::Path)),
        ("task", Some(Kind::Path)),
        ("test", Some(Kind::Path)),
        ("bench", Some(Kind::Path)),
        ("eval", Some(Kind::Text)),
        ("jupyter", None),
        ("lsp", None),
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
            ("deno|run|--allow-net|server.ts", "path server.ts"),
            ("deno|run|--allow-net=:80|-c|deno.json|server.ts|x", "path server.ts"),
            ("deno|run|-A|jsr:@std/http/file-server", "name jsr:@std/http/file-server"),
            ("deno|run|https://x.test/a.ts", "name https://x.test/a.ts"),
            ("deno|serve|--port|8080|main.ts", "path main.ts"),
            ("deno|-q|task|start", "path start"),
            ("deno|eval|Deno.serve(h)", "text Deno.serve(h)"),
            ("deno|server.ts", "path server.ts"),
            ("deno|repl", ""),
        ]);
    }
}
