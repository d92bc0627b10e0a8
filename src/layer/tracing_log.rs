//! Log records as events of the crate `tracing`, for Rust users.

use crate::log::{Record, RecordId, for_each_record};

use super::callbacks::OnLog;

/// Gives each log record to `tracing` as an event, with the level and target of the record and its
/// `id` as a field beside the message.
///
/// ```
/// use std::sync::Arc;
///
/// use channel_layer::layer::{Hooks, TracingLog};
/// use channel_layer::{Config, Layer};
///
/// # fn main() -> Result<(), channel_layer::Error> {
/// let hooks = Hooks {
///     on_log: Some(Arc::new(TracingLog)),
///     ..Hooks::default()
/// };
/// let mut config = Config::new();
/// config.set("host", "memory://traced")?;
/// let layer = Layer::with_hooks(&config, hooks)?;
/// # layer.close(std::time::Duration::from_secs(5))
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct TracingLog;

impl OnLog for TracingLog {
    fn log(&self, record: &Record) {
        // An event has its level and target from the place in the code, so each record has a place.
        macro_rules! event {
            ($($name:ident, $level:ident, $target:literal;)*) => {
                match record.id {
                    $(RecordId::$name => tracing::event!(
                        target: $target,
                        event!(@ $level),
                        id = record.id.as_str(),
                        "{}",
                        record.message
                    ),)*
                }
            };
            (@ Error) => { tracing::Level::ERROR };
            (@ Warn) => { tracing::Level::WARN };
            (@ Info) => { tracing::Level::INFO };
            (@ Debug) => { tracing::Level::DEBUG };
        }
        for_each_record!(event);
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::sync::Arc;
    use std::time::Duration;

    use tracing::field::{Field, Visit};
    use tracing::span;
    use tracing::{Event, Metadata, Subscriber};

    use super::*;
    use crate::config::Config;
    use crate::layer::{Hooks, Layer};
    use crate::log::Level;
    use crate::sync::Mutex;

    #[derive(Debug, Default, Clone, PartialEq)]
    struct Heard {
        level: Option<tracing::Level>,
        target: String,
        id: String,
        message: String,
    }

    impl Visit for Heard {
        fn record_str(&mut self, field: &Field, value: &str) {
            assert_eq!(field.name(), "id");
            self.id = value.to_owned();
        }

        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            assert_eq!(field.name(), "message");
            self.message = format!("{value:?}");
        }
    }

    #[derive(Default, Clone)]
    struct Listener(Arc<Mutex<Vec<Heard>>>);

    impl Subscriber for Listener {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target().starts_with("channel_layer::")
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

        fn event(&self, event: &Event<'_>) {
            let mut heard = Heard {
                level: Some(*event.metadata().level()),
                target: event.metadata().target().to_owned(),
                ..Heard::default()
            };
            event.record(&mut heard);
            self.0.lock().push(heard);
        }

        fn enter(&self, _: &span::Id) {}

        fn exit(&self, _: &span::Id) {}
    }

    fn expected(record: &Record) -> Heard {
        Heard {
            level: Some(match record.level() {
                Level::Error => tracing::Level::ERROR,
                Level::Warn => tracing::Level::WARN,
                Level::Info => tracing::Level::INFO,
                Level::Debug => tracing::Level::DEBUG,
            }),
            target: record.target().to_owned(),
            id: record.id.as_str().to_owned(),
            message: record.message.clone(),
        }
    }

    #[test]
    fn each_record_is_an_event_with_its_level_target_id_and_message() {
        let listener = Listener::default();
        tracing::subscriber::with_default(listener.clone(), || {
            for id in RecordId::ALL {
                let record = Record {
                    id: *id,
                    message: format!("{{}} about {}", id.as_str()),
                };
                TracingLog.log(&record);
                assert_eq!(listener.0.lock().pop(), Some(expected(&record)));
            }
        });
    }

    #[test]
    fn a_layer_tells_tracing_that_it_is_connected() {
        let listener = Listener::default();
        let mut config = Config::new();
        config.set("host", "memory://traced").unwrap();
        config.set("dispatch", "poll").unwrap();
        let hooks = Hooks {
            on_log: Some(Arc::new(TracingLog)),
            ..Hooks::default()
        };
        let layer = Layer::with_hooks(&config, hooks).unwrap();
        layer.wait_ready(Duration::from_secs(20)).unwrap();
        tracing::subscriber::with_default(listener.clone(), || {
            assert_eq!(layer.poll(0, Duration::from_secs(20)).unwrap(), 1);
        });
        let heard = listener.0.lock().clone();
        assert_eq!(heard.len(), 1, "{heard:?}");
        assert_eq!(heard[0].id, RecordId::Connected.as_str());
        assert!(heard[0].message.contains("memory://traced"), "{heard:?}");
        layer.close(Duration::from_secs(20)).unwrap();
    }
}
