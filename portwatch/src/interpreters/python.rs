//! Python, and the servers that run applications written in it.

use super::{Kind, Spec, Style};

/// The facts about Python (`python3 --help-all`).
pub const INTERPRETER: Spec = Spec {
    names: &["python", "pypy"],
    style: Style::Letters,
    values: "-W -X -Q --check-hash-based-pycs",
    runs: &[("-c", Kind::Text), ("-m", Kind::Path)],
    runners: &[
        &GUNICORN, &UVICORN, &HYPERCORN, &DAPHNE, &WAITRESS, &FLASK, &CELERY, &STREAMLIT, &FASTAPI,
        &TWISTD, &HTTP_SERVER, &JUPYTER, &AIRFLOW,
    ],
    ..Spec::PLAIN
};

/// `gunicorn [OPTIONS] [APP_MODULE]`.
const GUNICORN: Spec = Spec {
    names: &["gunicorn"],
    style: Style::Letters,
    values: "-b -c -e -g -k -m -n -p -t -u -w --access-logfile --access-logformat --backlog \
             --bind --ca-certs --cert-reqs --certfile --ciphers --config --env \
             --error-logfile --forwarded-allow-ips --graceful-timeout --group --keep-alive \
             --keyfile --limit-request-field_size --limit-request-fields --limit-request-line \
             --log-config --log-file --log-level --logger-class --max-requests \
             --max-requests-jitter --name --paste --pid --proxy-allow-from --pythonpath \
             --reload-engine --reload-extra-file --statsd-host --statsd-prefix --threads \
             --timeout --umask --user --worker-class --worker-connections --worker-tmp-dir \
             --workers",
    beside: &[("--chdir", Kind::Path)],
    here: true,
    ..Spec::PLAIN
};

/// `uvicorn [OPTIONS] APP`.
const UVICORN: Spec = Spec {
    names: &["uvicorn"],
    values: "--backlog --env-file --fd --forwarded-allow-ips \
             --h11-max-incomplete-event-size --header --host --http --interface --lifespan \
             --limit-concurrency --limit-max-requests --log-config --log-level --loop --port \
             --reload-delay --reload-dir --reload-exclude --reload-include --root-path \
             --ssl-ca-certs --ssl-cert-reqs --ssl-certfile --ssl-ciphers --ssl-keyfile \
             --ssl-keyfile-password --ssl-version --timeout-graceful-shutdown \
             --timeout-keep-alive --uds --workers --ws --ws-max-queue --ws-max-size \
             --ws-per-message-deflate --ws-ping-interval --ws-ping-timeout",
    beside: &[("--app-dir", Kind::Path)],
    ..Spec::PLAIN
};

/// `hypercorn [OPTIONS] APPLICATION`.
const HYPERCORN: Spec = Spec {
    names: &["hypercorn"],
    style: Style::Letters,
    values: "-b -c -g -k -m -p -u -w --access-logfile --access-logformat --backlog --bind \
             --ca-certs --certfile --ciphers --config --error-logfile --graceful-timeout \
             --group --insecure-bind --keep-alive --keyfile --keyfile-password --log-config \
             --log-level --max-requests --max-requests-jitter --pid --quic-bind --root-path \
             --server-name --statsd-host --statsd-prefix --umask --user --verify-mode \
             --websocket-ping-interval --worker-class --workers",
    ..Spec::PLAIN
};

/// `daphne [OPTIONS] APPLICATION`.
const DAPHNE: Spec = Spec {
    names: &["daphne"],
    style: Style::Letters,
    values: "-b -e -p -s -t -u -v --access-log --application-close-timeout --bind --endpoint \
             --fd --http-timeout --log-fmt --ping-interval --ping-timeout --port \
             --request-buffer-size --root-path --server-name --unix-socket --verbosity \
             --websocket_connect_timeout --websocket_timeout",
    ..Spec::PLAIN
};

/// `waitress-serve [--OPTION=VALUE …] MODULE:OBJECT`.
const WAITRESS: Spec =
    Spec { names: &["waitress-serve", "waitress"], values: "--app", ..Spec::PLAIN };

/// `flask [--app APP] COMMAND`. Without the option it searches its working directory.
const FLASK: Spec = Spec {
    names: &["flask"],
    style: Style::Letters,
    values: "-e --env-file",
    beside: &[("-A", Kind::Path), ("--app", Kind::Path)],
    operand: Some(Kind::Name),
    here: true,
    ..Spec::PLAIN
};

/// `celery -A APP COMMAND`.
const CELERY: Spec = Spec {
    names: &["celery"],
    style: Style::Letters,
    values: "-b --broker --result-backend --loader --config --workdir",
    beside: &[("-A", Kind::Path), ("--app", Kind::Path)],
    operand: Some(Kind::Name),
    here: true,
    ..Spec::PLAIN
};

/// `streamlit run FILE`.
const STREAMLIT: Spec =
    Spec { names: &["streamlit"], commands: &[("run", Some(Kind::Path))], ..Spec::PLAIN };

/// `fastapi run [OPTIONS] [FILE]`.
const FASTAPI: Spec = Spec {
    names: &["fastapi"],
    values: "--host --port --root-path --workers",
    beside: &[("--app", Kind::Name)],
    commands: &[("run", Some(Kind::Path)), ("dev", Some(Kind::Path))],
    here: true,
    ..Spec::PLAIN
};

/// `twistd [OPTIONS] PLUGIN`, or a file that contains the application.
const TWISTD: Spec = Spec {
    names: &["twistd"],
    style: Style::Letters,
    values: "-d -g -l -p -r -u --chroot --gid --logfile --logger --pidfile --prefix --profile \
             --profiler --reactor --rundir --uid --umask",
    beside: &[
        ("-f", Kind::Path),
        ("-s", Kind::Path),
        ("-y", Kind::Path),
        ("--file", Kind::Path),
        ("--python", Kind::Path),
        ("--source", Kind::Path),
    ],
    operand: Some(Kind::Name),
    here: true,
    ..Spec::PLAIN
};

/// `python3 -m http.server [-d DIRECTORY] [PORT]`.
const HTTP_SERVER: Spec = Spec {
    names: &["http.server", "SimpleHTTPServer"],
    style: Style::Letters,
    values: "-b -p --bind --protocol --tls-cert --tls-key",
    beside: &[("-d", Kind::Path), ("--directory", Kind::Path)],
    operand: None,
    here: true,
    ..Spec::PLAIN
};

/// `jupyter COMMAND [DIRECTORY]`.
const JUPYTER: Spec = Spec {
    names: &["jupyter", "jupyter-notebook", "jupyter-lab", "jupyter-server", "notebook"],
    values: "--config --ip --log-level --port",
    beside: &[("--notebook-dir", Kind::Path), ("--ServerApp.root_dir", Kind::Path)],
    commands: &[
        ("lab", Some(Kind::Path)),
        ("notebook", Some(Kind::Path)),
        ("server", Some(Kind::Path)),
    ],
    here: true,
    ..Spec::PLAIN
};

/// Programs that contain several servers, each with its own command: `airflow webserver`.
const AIRFLOW: Spec = Spec {
    names: &["airflow", "mlflow", "dagster", "prefect", "superset"],
    operand: Some(Kind::Name),
    ..Spec::PLAIN
};

#[cfg(test)]
mod tests {
    use crate::interpreters::tests::check;

    #[test]
    fn its_options_end_at_what_it_runs() {
        check(&[
            ("python3|app.py", "path app.py"),
            ("python3.12|-u|/srv/shop/app.py|--port|80", "path /srv/shop/app.py"),
            ("python3|-m|shop.server|-c|x", "path shop.server"),
            ("python3|-um|shop", "path shop"),
            ("python3|-mshop", "path shop"),
            ("python3|-W|ignore|-X|dev|app.py", "path app.py"),
            ("python3|-Wignore|-Xfrozen_modules=off|app.py", "path app.py"),
            ("python3|-BW|ignore|app.py", "path app.py"),
            ("python3|--check-hash-based-pycs|never|app.py", "path app.py"),
            ("python3|--check-hash-based-pycs=never|app.py", "path app.py"),
            ("python3|-c|import http.server|8000", "text import http.server"),
            ("python3|-Ic|print(1)", "text print(1)"),
            ("python3|-|x", ""),
            ("python3", ""),
            ("pypy3|-O|app.py", "path app.py"),
            ("python3.13t|app.py", "path app.py"),
            ("python3.11-dbg|app.py", "path app.py"),
            ("python|manage.py|runserver|0.0.0.0:8000", "path manage.py"),
            ("/srv/shop/venv/bin/python|/srv/shop/venv/bin/shop", "path /srv/shop/venv/bin/shop"),
        ]);
    }

    #[test]
    fn a_server_runs_an_application() {
        check(&[
            ("python3|/usr/bin/gunicorn|-w|4|app:app", "name gunicorn + path app:app"),
            ("python3|/venv/bin/gunicorn|shop.wsgi|-b|:8000", "name gunicorn + path shop.wsgi"),
            ("python3|-m|gunicorn|--bind=:80|app:app", "name gunicorn + path app:app"),
            ("python3|/usr/bin/gunicorn3|-c|conf.py", "name gunicorn + path ."),
            ("python3|/usr/bin/gunicorn|--preload|-k|gevent|a:b", "name gunicorn + path a:b"),
            (
                "python3|/usr/bin/gunicorn|--chdir|/srv/shop|wsgi",
                "name gunicorn + path /srv/shop + path wsgi",
            ),
            ("python3|/usr/bin/gunicorn|-Dw4|a:b", "name gunicorn + path a:b"),
            (
                "python3|-m|uvicorn|--host|0.0.0.0|shop.main:app",
                "name uvicorn + path shop.main:app",
            ),
            ("python3|/venv/bin/uvicorn|main:app|--reload", "name uvicorn + path main:app"),
            ("python3|/usr/bin/hypercorn|-b|[::]:80|main:app", "name hypercorn + path main:app"),
            ("python3|/usr/bin/daphne|-p|8001|shop.asgi:app", "name daphne + path shop.asgi:app"),
            ("python3|/usr/bin/waitress-serve|--port=80|w:app", "name waitress-serve + path w:app"),
            ("python3|-m|flask|--app|hello|run|-p|80", "name flask + path hello + name run"),
            ("python3|/usr/bin/flask|run|--host=0.0.0.0", "name flask + name run + path ."),
            ("python3|/usr/bin/celery|-A|proj|worker", "name celery + path proj + name worker"),
            ("python3|/usr/bin/celery|-A|proj|flower", "name celery + path proj + name flower"),
            ("python3|/usr/bin/streamlit|run|dash.py", "name streamlit + path dash.py"),
            ("python3|/usr/bin/fastapi|run|--port|80|a.py", "name fastapi + path a.py"),
            ("python3|/usr/bin/fastapi|dev", "name fastapi + path ."),
            ("python3|/usr/bin/twistd|-ny|shop.tac", "name twistd + path shop.tac"),
            ("python3|-m|http.server|8000", "name http.server + path ."),
            ("python3|-m|http.server|-d|/srv/www|8000", "name http.server + path /srv/www"),
            ("python2.7|-m|SimpleHTTPServer", "name http.server + path ."),
            ("python3|/usr/bin/jupyter-lab|--port=8888", "name jupyter + path ."),
            ("python3|-m|notebook|--notebook-dir=/data", "name jupyter + path /data"),
            ("python3|/usr/bin/jupyter|lab|/data", "name jupyter + path /data"),
            ("python3|/usr/bin/airflow|webserver|-p|80", "name airflow + name webserver"),
        ]);
    }
}
