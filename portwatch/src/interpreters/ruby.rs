//! Ruby, and the servers that run applications written in it.

use super::{Kind, Spec, Style};

/// The facts about Ruby (`ruby --help`).
pub const INTERPRETER: Spec = Spec {
    names: &["ruby", "jruby", "truffleruby"],
    style: Style::Letters,
    values: "-C -E -I -X -r --disable --dump --enable --encoding --external-encoding \
             --internal-encoding",
    joined: "0FKTWix",
    runs: &[("-e", Kind::Text)],
    runners: SERVERS,
    ..Spec::PLAIN
};

const SERVERS: &[&Spec] = &[&PUMA, &UNICORN, &THIN, &RACKUP, &SIDEKIQ, &BUNDLE, &JEKYLL];

/// `puma [OPTIONS] [FILE]`, for the application in its working directory.
const PUMA: Spec = Spec {
    names: &["puma"],
    style: Style::Letters,
    values: "-C -I -S -b -e -p -t -w --bind --config --control-token --control-url \
             --environment --fork-worker --include --pidfile --port --redirect-stderr \
             --redirect-stdout --state --tag --threads --workers",
    beside: &[("--dir", Kind::Path)],
    here: true,
    ..Spec::PLAIN
};

/// `unicorn [OPTIONS] [FILE]`.
const UNICORN: Spec = Spec {
    names: &["unicorn", "unicorn_rails"],
    values: "-E -I -c -l -o -p -r -s --config-file --env --host --include --listen --path --port \
             --require --server",
    here: true,
    ..PUMA
};

/// `thin [OPTIONS] COMMAND`.
const THIN: Spec = Spec {
    names: &["thin"],
    values: "-C -P -S -a -e -l -p -r -s -t -u -g --address --config --environment --group --log \
             --pid --port --servers --socket --tag --user",
    beside: &[("-R", Kind::Path), ("-c", Kind::Path), ("--chdir", Kind::Path)],
    operand: Some(Kind::Name),
    ..PUMA
};

/// `rackup [OPTIONS] [FILE]`.
const RACKUP: Spec = Spec {
    names: &["rackup"],
    values: "-E -I -O -P -o -p -q -r -s --env --host --include --option --pid --port --require \
             --server",
    ..PUMA
};

/// `sidekiq [OPTIONS]`.
const SIDEKIQ: Spec = Spec {
    names: &["sidekiq"],
    values: "-C -P -c -e -g -q -t --concurrency --config --environment --queue --tag --timeout",
    beside: &[("-r", Kind::Path), ("--require", Kind::Path)],
    ..PUMA
};

/// `bundle exec COMMAND`.
const BUNDLE: Spec = Spec {
    names: &["bundle", "bundler"],
    commands: &[("exec", Some(Kind::Path))],
    runners: &[&PUMA, &UNICORN, &THIN, &RACKUP, &SIDEKIQ],
    here: true,
    ..Spec::PLAIN
};

/// `jekyll serve`, for the site in its working directory.
const JEKYLL: Spec = Spec {
    names: &["jekyll", "middleman", "nanoc"],
    values: "-H -P -d -p --host --port",
    beside: &[("-s", Kind::Path), ("--source", Kind::Path)],
    operand: Some(Kind::Name),
    here: true,
    ..Spec::PLAIN
};

#[cfg(test)]
mod tests {
    use crate::interpreters::tests::check;

    #[test]
    fn its_options_end_at_what_it_runs() {
        check(&[
            ("ruby|server.rb", "path server.rb"),
            ("ruby3.1|-W0|-I|lib|-rbundler/setup|/srv/shop/server.rb", "path /srv/shop/server.rb"),
            ("ruby|-C/srv/shop|-Ku|server.rb", "path server.rb"),
            ("ruby|-E|UTF-8|--yjit|bin/rails|server", "path bin/rails"),
            ("ruby|--encoding=UTF-8|server.rb", "path server.rb"),
            ("ruby|-rsocket|-e|loop {}", "text loop {}"),
            ("ruby|-run|-ehttpd|.", "text httpd"),
        ]);
    }

    #[test]
    fn a_server_runs_an_application() {
        check(&[
            ("ruby|/usr/bin/puma|-C|config/puma.rb", "name puma + path ."),
            ("ruby|/usr/bin/puma|-p|80|-t|1:5|shop.ru", "name puma + path shop.ru"),
            ("ruby|/usr/bin/puma|--dir|/srv/shop", "name puma + path /srv/shop"),
            ("ruby|/usr/bin/bundle|exec|puma|-p|80", "name bundle + name puma + path ."),
            ("ruby|/usr/bin/bundle|exec|server.rb", "name bundle + path server.rb"),
            ("ruby|/usr/bin/unicorn|-c|u.rb|-E|production|-D", "name unicorn + path ."),
            ("ruby|/usr/bin/thin|-p|80|-R|shop.ru|start", "name thin + path shop.ru + name start"),
            ("ruby|/usr/bin/rackup|-o|0.0.0.0|config.ru", "name rackup + path config.ru"),
            ("ruby|/usr/bin/sidekiq|-r|./app.rb", "name sidekiq + path ./app.rb"),
        ]);
    }
}
