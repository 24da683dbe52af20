//! The .NET host.

use super::{Kind, Spec};

/// The facts about it (`dotnet --help`, `dotnet exec --help`, `dotnet run --help`).
pub const INTERPRETER: Spec = Spec {
    names: &["dotnet"],
    values: "-c -f -r --additional-deps --additionalprobingpath --arch --configuration \
             --depsfile --framework --fx-version --launch-profile --os --roll-forward --runtime \
             --runtimeconfig --verbosity",
    beside: &[("--project", Kind::Path)],
    commands: &[("exec", Some(Kind::Path)), ("run", None), ("watch", None)],
    ..Spec::PLAIN
};

#[cfg(test)]
mod tests {
    use crate::interpreters::tests::check;

    #[test]
    fn its_options_end_at_what_it_runs() {
        check(&[
            ("dotnet|Shop.dll", "path Shop.dll"),
            ("dotnet|/srv/shop/Shop.dll|--urls|http://*:80", "path /srv/shop/Shop.dll"),
            ("dotnet|exec|--runtimeconfig|a.json|Shop.dll", "path Shop.dll"),
            ("dotnet|--roll-forward|Major|Shop.dll", "path Shop.dll"),
            ("dotnet|run|--project|src/Shop|-c|Release", "path src/Shop"),
            ("dotnet|run", ""),
        ]);
    }
}
