//! Programs that accept a secret in a one-letter option, and which of them a command line
//! starts.

use super::{
    names::Kind,
    positions::{self, Words},
};

/// A one-letter option, whether the secret may be the next argument, and what kind of secret it
/// is. The secret may always follow the letter directly.
type Letter = (char, bool, Kind);

/// Other forms in which such a program accepts a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Also {
    Nothing,
    /// It starts another program, which has its own options.
    Wraps,
    /// `/p:…`
    Slash,
    /// `user/…@database`
    Oracle,
}

#[derive(Debug)]
struct Client {
    names: &'static [&'static str],
    letters: &'static [Letter],
    /// The letters of other options. In a group (`-su`) the letter before may be any letter
    /// except these. `None` if letters are not grouped.
    others: Option<&'static str>,
    also: Also,
}

const fn client(
    names: &'static [&'static str],
    letters: &'static [Letter],
    others: Option<&'static str>,
) -> Client {
    Client { names, letters, others, also: Also::Nothing }
}

const fn special(names: &'static [&'static str], letters: &'static [Letter], also: Also) -> Client {
    Client { names, letters, others: None, also }
}

use Kind::{Key, Pair, Secret};

/// mysql's `-p` alone asks for the password.
const CLIENTS: [Client; 26] = [
    client(
        &[
            "mysql", "mysqldump", "mysqladmin", "mysqlimport", "mysqlsh", "mysqlcheck",
            "mysqlshow", "mysqlbinlog", "mysqlslap", "mysqlpump", "mysql_upgrade", "mariadb",
            "mariadb-dump", "mariadb-admin", "mariadb-import", "mariadb-check", "mariadb-backup",
            "mariadb-show", "mariadb-slap", "mariadb-binlog", "mariadb-upgrade", "mariabackup",
            "xtrabackup",
        ],
        &[('p', false, Secret)],
        Some("uhPDeSrTw"),
    ),
    special(&["sshpass"], &[('p', true, Secret)], Also::Wraps),
    client(
        &[
            "mongo", "mongosh", "mongodump", "mongorestore", "mongoexport", "mongoimport",
            "mongostat", "mongotop", "mongofiles",
        ],
        &[('p', true, Secret)],
        None,
    ),
    client(
        &["redis-cli", "redis-benchmark", "valkey-cli", "valkey-benchmark", "keydb-cli"],
        &[('a', true, Secret)],
        None,
    ),
    client(
        &["curl"],
        &[('u', true, Secret), ('U', true, Secret), ('b', true, Key)],
        Some("AcCdDeEFhHKmoPQrtTwxXyYz"),
    ),
    client(&["http", "https", "xh"], &[('a', true, Pair)], None),
    client(
        &["ldapsearch", "ldapadd", "ldapmodify", "ldapdelete", "ldapwhoami", "ldapcompare"],
        &[('w', true, Secret)],
        Some("abcdDeEfFhHloOpPRsSTUXyYz"),
    ),
    client(
        &["ldappasswd"],
        &[('w', true, Secret), ('s', true, Secret), ('a', true, Secret)],
        Some("dDeEfhHoOpPRtTUXyY"),
    ),
    client(
        &["smbclient", "smbget", "rpcclient", "net", "smbcacls", "winexe", "wmic"],
        &[('U', true, Pair)],
        None,
    ),
    // `docker login`, `oc login`, `az login`.
    client(&["login"], &[('p', true, Secret)], None),
    client(
        &["sqlcmd", "bcp", "tsql", "isql", "ipmitool", "mosquitto_pub", "mosquitto_sub"],
        &[('P', true, Secret)],
        None,
    ),
    client(&["microsocks"], &[('P', true, Secret)], Some("iupwb")),
    client(&["zip", "zipcloak", "zipnote", "unzip"], &[('P', true, Secret)], Some("bdinOstxZ")),
    client(&["7z", "7za", "7zz", "rar", "unrar"], &[('p', false, Secret)], None),
    client(
        &["cqlsh", "rabbitmqadmin", "rdesktop", "useradd", "usermod"],
        &[('p', true, Secret)],
        None,
    ),
    client(
        &[
            "snmpget", "snmpgetnext", "snmpwalk", "snmpbulkwalk", "snmpbulkget", "snmpset",
            "snmptable", "snmpstatus", "snmptrap", "snmpinform",
        ],
        &[('c', true, Secret), ('A', true, Secret), ('X', true, Secret)],
        None,
    ),
    client(
        &["ss-server", "ss-local", "ss-redir", "ss-tunnel", "ss-manager", "sslocal", "ssserver"],
        &[('k', true, Secret)],
        Some("abcfilLmnpst"),
    ),
    client(&["ttyd"], &[('c', true, Pair)], Some("ACdDgHIiKmPpqSsTtUuwb")),
    client(&["turnserver"], &[('u', true, Pair)], None),
    client(&["gotty"], &[('c', true, Pair)], None),
    client(&["miniserve"], &[('a', true, Pair)], Some("cdhimpt")),
    client(&["frps", "frpc", "k3s"], &[('t', true, Secret)], None),
    client(&["lftp"], &[('u', true, Secret)], None),
    client(&["ab"], &[('A', true, Pair), ('P', true, Pair)], Some("BbCceEfgHmnpsTtuvXxyzZ")),
    special(&["xfreerdp", "xfreerdp3", "wlfreerdp", "sdl-freerdp"], &[], Also::Slash),
    special(&["sqlplus"], &[], Also::Oracle),
];

/// Words before a program's name: programs that start another one, and words of a shell before
/// a command.
const WRAPPERS: [&str; 31] = [
    "sudo", "doas", "env", "timeout", "nice", "nohup", "exec", "time", "setsid", "ionice",
    "stdbuf", "chrt", "taskset", "xargs", "command", "builtin", "eval", "strace", "tini",
    "dumb-init", "catatonit", "then", "do", "else", "elif", "if", "while", "until", "!", "{",
    "trap",
];

/// Characters that end a command in a script.
pub const SEPARATORS: [char; 5] = [';', '|', '&', '(', '`'];

/// Position of the scan in a command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// A command may follow.
    #[default]
    Command,
    /// After a program that may start another one: `docker exec db mysql`.
    Within,
    /// After the name of such a program; its arguments follow.
    Client,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    client: &'static Client,
    /// Whether the name may be the value of an option: `--name mongo`.
    is_doubtful: bool,
}

/// The place of a secret in an argument.
pub struct Found {
    /// Where it starts.
    pub start: usize,
    /// Where the text after it starts.
    pub end: usize,
    pub kind: Kind,
    /// Whether the next argument is the secret if this place is empty.
    pub may_follow: bool,
    /// Whether a text that looks like a port is not a secret.
    pub is_doubtful: bool,
}

/// The programs whose options are searched.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    known: Vec<Known>,
    place: Place,
    after_option: bool,
    /// The number of open parentheses and backticks. The surrounding command continues after
    /// them.
    depth: usize,
    in_backticks: bool,
    /// The programs that are known from the surrounding text.
    of_text: Vec<&'static positions::Program>,
    /// The words so far of the last program with a secret at a certain position.
    words: Option<Words>,
}

impl Programs {
    /// Continues in a text of many words.
    pub fn in_text(&mut self, text: &str) {
        self.of_text = positions::of_text(text);
    }

    /// Returns whether the next word, which may be part of a shell's script, is a secret by its
    /// position.
    pub fn is_secret(&mut self, word: &str, shell: bool) -> bool {
        let is_secret = self.words.as_mut().map(|words| words.is_secret(word, shell));
        if is_secret == Some(None) {
            self.words = None;
        }
        is_secret.flatten() == Some(true)
    }

    /// Returns the state for a text that is one argument: it may contain a command of its own,
    /// or continue with options of this one.
    pub fn within(&self) -> Self {
        Self { known: self.known.clone(), ..Self::default() }
    }

    /// Starts another command.
    pub fn separate(&mut self) {
        if self.depth == 0 && !self.in_backticks {
            self.known.clear();
            self.words = None;
        }
        self.begin();
    }

    /// Expects a command.
    pub fn begin(&mut self) {
        self.place = Place::Command;
        self.after_option = false;
    }

    /// Starts commands inside a word of a text, whatever else the word is.
    pub fn see_within(&mut self, word: &str) {
        self.depth += word.matches('(').count();
        self.depth = self.depth.saturating_sub(word.matches(')').count());
        self.in_backticks ^= word.matches('`').count() % 2 == 1;
        for part in word.split(SEPARATORS).skip(1) {
            self.begin();
            self.words = self.words.filter(|words| !words.end_with_command());
            if !part.is_empty() {
                self.see(part);
            }
        }
    }

    /// Passes an argument with spaces, which is not a program's name.
    pub fn see_text(&mut self) {
        self.after_option = false;
    }

    /// Checks whether a word is a program's name.
    pub fn see(&mut self, word: &str) {
        if word.starts_with('-') {
            self.after_option = word != "--";
            return;
        }
        let after_option = std::mem::take(&mut self.after_option);
        let wraps = |known: &Known| known.client.also == Also::Wraps;
        if !after_option && self.known.iter().any(wraps) {
            self.known.retain(|known| !wraps(known));
            self.place = Place::Command;
        }
        if self.place == Place::Client {
            return;
        }
        let name = name(word);
        let client = CLIENTS.iter().find(|client| client.names.contains(&name));
        let words = Words::of(name, &self.of_text).filter(|_| !after_option);
        let is_command = self.place == Place::Command;
        if let Some(client) = client {
            self.add(Known { client, is_doubtful: after_option && !is_command });
        }
        // After an option of a wrapper the word may be the value of that option:
        // `sudo -u net curl`.
        let may_be_other = after_option
            || WRAPPERS.contains(&name)
            || word.contains('=')
            || word.starts_with(|char: char| char.is_ascii_digit());
        if is_command && !may_be_other {
            let has_secrets = client.is_some() || words.is_some();
            self.place = if has_secrets { Place::Client } else { Place::Within };
        }
        self.words = words.or(self.words);
    }

    fn add(&mut self, new: Known) {
        let same = self.known.iter_mut().find(|known| std::ptr::eq(known.client, new.client));
        match same {
            Some(known) => known.is_doubtful &= new.is_doubtful,
            None => self.known.push(new),
        }
    }

    /// Returns the position of a secret in an argument of these programs.
    pub fn secret_in(&self, word: &str) -> Option<Found> {
        let certain = self.known.iter().filter(|known| !known.is_doubtful);
        let doubtful = self.known.iter().filter(|known| known.is_doubtful);
        certain.chain(doubtful).find_map(|known| known.secret_in(word))
    }
}

impl Known {
    fn secret_in(self, word: &str) -> Option<Found> {
        let Self { client, is_doubtful } = self;
        let found =
            |start, end, kind, may_follow| Found { start, end, kind, may_follow, is_doubtful };
        let Some(option) = word.strip_prefix('-') else {
            return match client.also {
                Also::Slash => ["/p:", "/gp:"]
                    .iter()
                    .find(|option| word.starts_with(**option))
                    .map(|option| found(option.len(), word.len(), Secret, false)),
                Also::Oracle => {
                    let user = word.find('/').filter(|&slash| slash > 0)?;
                    let end = word.rfind('@').filter(|&at| at > user).unwrap_or(word.len());
                    (!word.starts_with('@')).then(|| found(user + 1, end, Secret, false))
                }
                Also::Nothing | Also::Wraps => None,
            };
        };
        for (at, char) in option.char_indices() {
            let letter = client.letters.iter().find(|(letter, ..)| *letter == char);
            if let Some(&(_, may_follow, kind)) = letter {
                return Some(found(1 + at + char.len_utf8(), word.len(), kind, may_follow));
            }
            let is_flag = client.others.is_some_and(|others| !others.contains(char));
            if !is_flag || !(char.is_ascii_alphanumeric() || char == '#') {
                return None;
            }
        }
        None
    }
}

/// Returns the name of the program in a word: the part after the path, and before an image's
/// tag.
fn name(word: &str) -> &str {
    if word.contains("://") {
        return "";
    }
    let word = word
        .trim_start_matches(['(', '`', '"', '\'', '$'])
        .trim_end_matches([';', ')', '`', '"', '\'']);
    let name = word.rsplit('/').next().unwrap_or(word);
    name.split_once(':').map_or(name, |(name, _)| name)
}
