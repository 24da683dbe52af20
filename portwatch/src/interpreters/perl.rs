//! Perl.

use super::{Kind, Spec, Style};

/// The facts about Perl (`perlrun(1)`).
pub const INTERPRETER: Spec = Spec {
    names: &["perl"],
    style: Style::Letters,
    values: "-I",
    joined: "0CDFMVilmx",
    runs: &[("-E", Kind::Text), ("-e", Kind::Text)],
    runners: &[&PLACKUP, &STARMAN, &MORBO, &HYPNOTOAD],
    ..Spec::PLAIN
};

/// `plackup [OPTIONS] [FILE]`; it runs `app.psgi` if no file is named.
const PLACKUP: Spec = Spec {
    names: &["plackup"],
    style: Style::Letters,
    values: "-E -I -L -R -o -p -s --access-log --env --host --listen --loader --port --server \
             --socket",
    joined: "M",
    runs: &[("-e", Kind::Text)],
    beside: &[("-a", Kind::Path), ("--app", Kind::Path)],
    here: true,
    ..Spec::PLAIN
};

/// `starman [OPTIONS] [FILE]`.
const STARMAN: Spec = Spec {
    names: &["starman"],
    values: "-E -I --access-log --backlog --error-log --group --host --listen --max-requests --pid \
             --port --user --workers -l -p",
    ..PLACKUP
};

/// `morbo [OPTIONS] FILE`.
const MORBO: Spec = Spec {
    names: &["morbo"],
    style: Style::Letters,
    values: "-b -l -m -w --backend --listen --mode --watch",
    ..Spec::PLAIN
};

/// `hypnotoad FILE`.
const HYPNOTOAD: Spec = Spec { names: &["hypnotoad"], ..Spec::PLAIN };

#[cfg(test)]
mod tests {
    use crate::interpreters::tests::check;

    #[test]
    fn its_options_end_at_what_it_runs() {
        check(&[
            (
                "perl|-w|/usr/sbin/miniserv.pl|/etc/webmin/miniserv.conf",
                "path /usr/sbin/miniserv.pl",
            ),
            ("perl|-I|lib|-Mstrict|server.pl", "path server.pl"),
            ("perl|-Ilib|-MData::Dumper|-e|serve()", "text serve()"),
            ("perl5.36.0|-0777|-ne|print|x", "text print"),
            ("perl|-T|--|server.pl", "path server.pl"),
            ("perl|/usr/bin/plackup|-p|5000|app.psgi", "name plackup + path app.psgi"),
            ("perl|/usr/bin/plackup|-s|Starman", "name plackup + path ."),
            ("perl|/usr/bin/starman|--port|80|-a|a.psgi", "name starman + path a.psgi"),
            ("perl|/usr/bin/morbo|-l|http://*:80|shop.pl", "name morbo + path shop.pl"),
        ]);
    }
}
