//! Java and the other languages of the JVM.

use super::{Kind, Spec};

/// The facts about Java (`java --help`, `java -X`). `jsvc` runs a class as a daemon. Tomcat and
/// WildFly run the applications in a directory that a property names.
pub const INTERPRETER: Spec = Spec {
    names: &["java", "javaw", "jsvc", "jsvc.exec"],
    values: "-cp -classpath --class-path -p --module-path --upgrade-module-path --add-modules \
             --add-reads --add-exports --add-opens --limit-modules --patch-module --source \
             --enable-native-access --illegal-native-access -d --describe-module \
             -cwd -errfile -home -java-home -outfile -pidfile -procname -user -wait",
    runs: &[("-jar", Kind::Path), ("-m", Kind::Name), ("--module", Kind::Name)],
    beside: &[
        ("-Dcatalina.base", Kind::Path),
        ("-Djboss.server.base.dir", Kind::Path),
        ("-Djetty.base", Kind::Path),
        ("-Dmaven.multiModuleProjectDirectory", Kind::Path),
    ],
    operand: Some(Kind::Name),
    argument_files: true,
    libraries: &["-cp", "-classpath", "--class-path", "-p", "--module-path"],
    runners: &[&JRUBY, &CLOJURE, &SPRING, &JETTY, &BUILD],
    ..Spec::PLAIN
};

/// Ruby on the JVM.
const JRUBY: Spec = Spec { names: &["org.jruby.Main"], ..super::ruby::INTERPRETER };

/// `clojure.main [-m NAMESPACE | FILE]`.
const CLOJURE: Spec = Spec {
    names: &["clojure.main"],
    values: "-i --init",
    runs: &[("-e", Kind::Text), ("-m", Kind::Name), ("--eval", Kind::Text), ("--main", Kind::Name)],
    ..Spec::PLAIN
};

/// Starts the application of the directory that it is in.
const SPRING: Spec = Spec {
    names: &[
        "org.springframework.boot.loader.JarLauncher",
        "org.springframework.boot.loader.PropertiesLauncher",
        "org.springframework.boot.loader.WarLauncher",
        "org.springframework.boot.loader.launch.JarLauncher",
        "org.springframework.boot.loader.launch.PropertiesLauncher",
        "org.springframework.boot.loader.launch.WarLauncher",
    ],
    operand: None,
    here: true,
    ..Spec::PLAIN
};

/// Jetty, which runs the applications in its base directory: its working directory, if no
/// property names another.
const JETTY: Spec =
    Spec { names: &["jetty", "start.jar"], operand: None, here: true, ..Spec::PLAIN };

/// Build tools, which run the application of the project in their working directory.
const BUILD: Spec = Spec {
    names: &[
        "org.codehaus.plexus.classworlds.launcher.Launcher",
        "org.gradle.launcher.GradleMain",
        "org.gradle.wrapper.GradleWrapperMain",
        "sbt-launch.jar",
        "mill.runner.client.MillClientMain",
    ],
    values: "-b -c -f -p -pl --build-file --file --project-dir --projects",
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
            ("java|-jar|/opt/shop/shop-2.4.0.jar", "path /opt/shop/shop-2.4.0.jar"),
            ("java|-Xmx512m|-XX:+UseG1GC|-Dserver.port=80|-jar|app.jar|-x", "path app.jar"),
            ("java|-cp|/opt/shop/lib/*|com.shop.Main|server.yml", "name com.shop.Main"),
            ("java|-classpath|a.jar:b.jar|-ea|com.shop.Main", "name com.shop.Main"),
            ("java|--class-path=a.jar|com.shop.Main", "name com.shop.Main"),
            (
                "java|--module-path|mods|--module|com.shop/com.shop.Main",
                "name com.shop/com.shop.Main",
            ),
            ("java|-p|mods|-m|com.shop", "name com.shop"),
            ("java|--add-opens|java.base/java.lang=ALL-UNNAMED|-jar|app.jar", "path app.jar"),
            ("java|--add-opens=java.base/java.lang=ALL-UNNAMED|-jar|app.jar", "path app.jar"),
            ("java|-javaagent:/opt/agent.jar|-jar|app.jar", "path app.jar"),
            ("java|-agentlib:jdwp=transport=dt_socket,address=*:5005|A", "name A"),
            ("java|@/opt/shop/jvm.options|-jar|app.jar", "path app.jar"),
            ("java|@/opt/shop/args", "path /opt/shop/args"),
            ("java|@/opt/shop/args|80", ""),
            ("java|Shop.java|80", "name Shop.java"),
            ("java|-version", ""),
            ("jsvc.exec|-home|/jdk|-cp|a.jar|-pidfile|/run/a.pid|a.Daemon", "name a.Daemon"),
        ]);
    }

    #[test]
    fn a_server_runs_applications() {
        let catalina = "org.apache.catalina.startup.Bootstrap";
        let loader = "org.springframework.boot.loader.launch.JarLauncher";
        check(&[
            (
                &format!(
                    "java|-Dcatalina.base=/srv/shop|-cp|/t/bin/bootstrap.jar|{catalina}|start"
                ),
                &format!("path /srv/shop + name {catalina}"),
            ),
            (
                "java|-D[Standalone]|-Djboss.server.base.dir=/srv/a|-jar|/opt/w/jboss-modules.jar|-mp|m",
                "path /srv/a + path /opt/w/jboss-modules.jar",
            ),
            (
                &format!("java|{loader}|--server.port=80"),
                "name org.springframework.boot.loader.JarLauncher + path .",
            ),
            ("java|-cp|j.jar|org.jruby.Main|-Ilib|app.rb", "name org.jruby.Main + path app.rb"),
            ("java|-cp|c.jar|clojure.main|-m|shop.core", "name clojure.main + name shop.core"),
            ("java|-Djetty.base=/srv/b|-jar|/opt/j/start.jar", "path /srv/b + name jetty"),
            ("java|-jar|/opt/jetty/start.jar", "name jetty + path ."),
            (
                "java|-cp|gradle/wrapper/gradle-wrapper.jar|org.gradle.wrapper.GradleWrapperMain|run",
                "name org.codehaus.plexus.classworlds.launcher.Launcher + name run + path .",
            ),
            (
                "java|-cp|w.jar|-Dmaven.multiModuleProjectDirectory=/srv/shop|\
                 org.codehaus.plexus.classworlds.launcher.Launcher|jetty:run",
                "path /srv/shop + name org.codehaus.plexus.classworlds.launcher.Launcher + \
                 name jetty:run",
            ),
        ]);
    }
}
