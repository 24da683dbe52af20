//! The definition of a sink in the registry, from which follow: its name in `format`, in the
//! `type` of a `[[sink]]` table and in the help, the place of its losses, which outputs
//! exclude each other, and how it is opened.

/// Defines [`Format`](super::Format), [`Kind`](super::Kind) and how to open the
/// [`Keys`](super::Keys) of all entries. Entries under `format` have no keys but `type`; only
/// a table can name those under `table`. `open` is an expression for the sink that may use the
/// three names given first, and `?`.
macro_rules! sinks {
    (
        |$keys:ident, $out:ident, $colour:ident|
        format {$(
            $(#[$help:meta])+
            $format:ident { name: $name:literal, stdout: $stdout:literal, open: $open:expr }
        )+}
        table {$(
            $(#[$table_help:meta])+
            $table:ident {
                name: $table_name:literal,
                stdout: $table_stdout:literal,
                needs: [$($needed:literal),*],
                takes: [$($taken:literal),*],
                open: $table_open:expr
            }
        )+}
    ) => {
        /// An output format.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
        pub enum Format {
            $($(#[$help])+ #[value(name = $name)] #[serde(rename = $name)] $format,)+
        }

        /// The type of a sink.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Kind {
            $($(#[$help])+ #[serde(rename = $name)] $format,)+
            $($(#[$table_help])+ #[serde(rename = $table_name)] $table,)+
        }

        impl Kind {
            /// All that there are.
            pub const ALL: &'static [Self] = &[$(Self::$format,)+ $(Self::$table,)+];

            /// Returns its entry in the registry.
            pub fn entry(self) -> Entry {
                match self {
                    $(Self::$format => Entry {
                        name: $name,
                        place: Place(concat!("sink.", $name)),
                        is_format: true,
                        is_on_stdout: $stdout,
                        needs: &[],
                        takes: &[],
                    },)+
                    $(Self::$table => Entry {
                        name: $table_name,
                        place: Place(concat!("sink.", $table_name)),
                        is_format: false,
                        is_on_stdout: $table_stdout,
                        needs: &[$($needed),*],
                        takes: &[$($taken),*],
                    },)+
                }
            }
        }

        impl From<Format> for Kind {
            fn from(format: Format) -> Self {
                match format { $(Format::$format => Self::$format,)+ }
            }
        }

        impl Keys {
            fn open_sink<W: Write + AsFd + Send + 'static>(
                &self,
                $out: W,
                $colour: ColorChoice,
            ) -> Result<Box<dyn Sink>, OpenError> {
                let $keys = self;
                let sink: Box<dyn Sink> = match self.kind {
                    $(Kind::$format => Box::new($open),)+
                    $(Kind::$table => Box::new($table_open),)+
                };
                Ok(sink)
            }
        }
    };
}

pub(super) use sinks;
