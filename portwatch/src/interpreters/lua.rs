//! Lua and LuaJIT.

use super::{Kind, Spec, Style};

/// The facts about Lua (`lua(1)`, `luajit(1)`). A script runs after the code of `-e`.
pub const INTERPRETER: Spec = Spec {
    names: &["lua", "luajit"],
    style: Style::Letters,
    values: "-j -l",
    joined: "O",
    beside: &[("-e", Kind::Text)],
    ..Spec::PLAIN
};

#[cfg(test)]
mod tests {
    use crate::interpreters::tests::check;

    #[test]
    fn its_options_end_at_what_it_runs() {
        check(&[
            ("lua5.4|server.lua|80", "path server.lua"),
            ("lua|-l|socket|-e|port = 80|server.lua", "text port = 80 + path server.lua"),
            ("luajit|-O3|-joff|server.lua", "path server.lua"),
            ("luajit|-e|serve()", "text serve()"),
        ]);
    }
}
