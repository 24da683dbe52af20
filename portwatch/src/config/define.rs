//! The definition of a setting. From it follow the flag, the environment variable, the key of
//! the file, the effective setting, packaging/config.toml and the table in docs/config.md.

/// Defines [`Layer`](super::Layer) and [`Settings`](super::Settings) from all definitions. A
/// default is in parentheses and may use `$said`, the merged layers; `none` makes it an
/// `Option`. `reload` says whether a change takes effect in a running agent.
macro_rules! settings {
    ($said:ident: $(
        $(#[$help:meta])+
        $key:ident: $type:ty {
            flag: $value_name:literal $(($($flag:tt)+))?,
            variable: $variable:literal,
            default: $default:tt $(as $default_text:literal)?,
            reload: $reload:ident $(but $but:literal)?,
            values: $values:expr,
            sample: $sample:expr $(, example: $example:literal)?,
        }
    )+) => {
        /// The settings of one layer; `None` if it does not set one.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case")]
        #[command(next_help_heading = "Settings, also in the file and as PORTWATCH_…")]
        pub struct Layer {
            $(
                $(#[$help])+
                #[arg(
                    long,
                    value_name = $value_name,
                    env = $variable,
                    hide_env_values = true
                    $(, $($flag)+)?
                )]
                pub $key: Option<$type>,
            )+
            /// Sinks with keys of their own, which only the file can set.
            #[arg(skip)]
            pub sink: Option<Vec<Table>>,
        }

        impl Layer {
            /// Returns this layer, with the values of `below` for the settings that it does not
            /// set.
            #[must_use]
            pub fn over(self, below: Self) -> Self {
                let tables = self.tables_over(below.sink);
                Self { $($key: self.$key.or(below.$key),)+ sink: tables }
            }
        }

        /// The effective settings.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
        #[serde(rename_all = "kebab-case")]
        pub struct Settings {
            $(
                $(#[$help])+
                pub $key: settings!(@held $default $type),
            )+
            /// Sinks with their own keys.
            pub sink: Vec<Table>,
        }

        impl From<Layer> for Settings {
            fn from($said: Layer) -> Self {
                Self {
                    $($key: settings!(@or_default $default $said.$key),)+
                    sink: $said.sink.unwrap_or_default(),
                }
            }
        }

        impl Settings {
            /// Returns whether the outputs are the same. They change only on restart. All other
            /// settings can also change in a running agent.
            pub fn same_outputs(&self, other: &Self) -> bool {
                self.sink == other.sink
                    $(&& settings!(@stays $reload self.$key, other.$key))+
            }
        }

        #[cfg(test)]
        fn documents() -> Vec<tests::Document> {
            vec![$(tests::Document {
                key: stringify!($key).replace('_', "-"),
                values: $values.into(),
                default: [$($default_text)?].first().copied(),
                reload: [stringify!($reload) $(, $but)?].join(", but "),
                sample: $sample.into(),
                example: [$($example)?].first().copied(),
            }),+]
        }
    };
    (@held none $type:ty) => { Option<$type> };
    (@held ($default:expr) $type:ty) => { $type };
    (@or_default none $said:expr) => { $said };
    (@or_default ($default:expr) $said:expr) => {
        match $said {
            Some(said) => said,
            None => $default,
        }
    };
    (@stays no $one:expr, $other:expr) => { $one == $other };
    (@stays yes $one:expr, $other:expr) => { true };
}

pub(super) use settings;
