//! PHP's command line interpreter. php-fpm does not run a script of its own.

use super::{Kind, Spec, Style};

/// The facts about it (`php --help`). With `-S` it is a web server for the directory that `-t`
/// names, or for its working directory.
pub const INTERPRETER: Spec = Spec {
    names: &["php", "php-cgi"],
    style: Style::Letters,
    values: "-S -c -d -z --define --php-ini --server --zend-extension",
    runs: &[
        ("-B", Kind::Text),
        ("-E", Kind::Text),
        ("-F", Kind::Path),
        ("-R", Kind::Text),
        ("-f", Kind::Path),
        ("-r", Kind::Text),
        ("--file", Kind::Path),
        ("--process-begin", Kind::Text),
        ("--process-code", Kind::Text),
        ("--process-end", Kind::Text),
        ("--process-file", Kind::Path),
        ("--run", Kind::Text),
    ],
    beside: &[("-t", Kind::Path), ("--docroot", Kind::Path)],
    ..Spec::PLAIN
};

#[cfg(test)]
mod tests {
    use crate::interpreters::tests::check;

    #[test]
    fn its_options_end_at_what_it_runs() {
        check(&[
            ("php|/srv/shop/artisan|serve|--port=80", "path /srv/shop/artisan"),
            ("php8.2|-d|memory_limit=-1|server.php", "path server.php"),
            ("php|-dmemory_limit=-1|-c|/etc/php.ini|server.php", "path server.php"),
            ("php|-f|server.php|--|-x", "path server.php"),
            ("php|-r|sleep(9);", "text sleep(9);"),
            ("php|-S|0.0.0.0:80|-t|public", "path public"),
            ("php|-S|0.0.0.0:80|-t|public|router.php", "path public + path router.php"),
            ("php|-S|0.0.0.0:80", ""),
            ("php|-nq|server.php", "path server.php"),
        ]);
    }
}
