//! `layer_config_t`: options, and the callbacks that come with them.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use crate::config::Config;
use crate::layer::{Hooks, Layer};

use super::callback::{
    IsolationCallback, LogCallback, StateCallback, layer_destroy_cb, layer_isolation_cb,
    layer_log_cb, layer_state_cb,
};
use super::handle;
use super::status::{guard, guard_value, layer_error_t, layer_status_t};

/// Options for a layer. Not for use from two threads at once.
#[derive(Default)]
pub struct layer_config_t {
    pub(super) config: Config,
    pub(super) hooks: Hooks,
}

/// Makes a set of options, all at their defaults.
///
/// The result is to be freed by `layer_config_free`; NULL only if memory is exhausted. Never
/// blocks; any thread; allowed from a callback.
#[unsafe(no_mangle)]
#[must_use]
pub extern "C" fn layer_config_new() -> *mut layer_config_t {
    guard_value(std::ptr::null_mut(), || {
        handle::give(layer_config_t::default())
    })
}

/// Sets an option; README.md lists them. Durations are decimal seconds ("0.25"), sizes bytes.
///
/// `config`: changed. `name`, `value`: copied. `error`: see the conventions. Never blocks; one thread
/// at a time; allowed from a callback. Returns `LAYER_OK`; `LAYER_INVALID` (NULL, an unknown name, a
/// bad value: the error names the option, the value and what is allowed).
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn layer_config_set(
    config: *mut layer_config_t,
    name: *const c_char,
    value: *const c_char,
    error: *mut *mut layer_error_t,
) -> layer_status_t {
    guard(error, || {
        // SAFETY: the caller passes NULL or a config of its own, and NULL or C strings.
        let (config, name, value) = unsafe {
            (
                handle::borrow_mut(config, "config")?,
                handle::text(name, "name")?,
                handle::text(value, "value")?,
            )
        };
        config.config.set(name, value)
    })
}

/// Checks a config without opening a layer: fails where `layer_new` would refuse this config, with
/// the same error. It opens no connection, looks up no name and starts no thread.
///
/// `layer_config_set` has refused unknown names and bad values already; this also checks the options
/// against each other and, where a URL of option `host` begins with `amqps://`, reads what
/// `layer_new` reads: `tls_ca_pem`, the files of the options `tls_...`, or the system's certificate
/// authorities. Files are read again by `layer_new`, and may have changed by then.
///
/// `config`: borrowed and not changed; NULL for all defaults. `error`: see the conventions. Never
/// blocks for the network; one thread at a time; allowed from a callback. Returns `LAYER_OK`;
/// `LAYER_INVALID` (options that contradict each other, a file or PEM text that cannot be used).
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn layer_config_check(
    config: *const layer_config_t,
    error: *mut *mut layer_error_t,
) -> layer_status_t {
    guard(error, || {
        let defaults = layer_config_t::default();
        // SAFETY: the caller passes NULL or a config of its own.
        let config = unsafe { config.as_ref() }.unwrap_or(&defaults);
        Layer::check(&config.config)
    })
}

/// Sets who gets the log records of layers that are made from this config; without it there is no
/// log. A second call replaces the first one's callback, for layers made later.
///
/// Records of one layer come one at a time, in order; two layers may call at once. At most 1024
/// records, state changes and other events of a layer wait; `LAYER_STAT_EVENTS_DROPPED` counts what was too
/// much. With `dispatch=poll` they come from `layer_poll`. `destroy` runs once the config and all
/// its layers are gone.
///
/// `config`: changed. `callback`: not NULL. `userdata`, `destroy`: see the conventions. Never
/// blocks; one thread at a time; allowed from a callback. Returns `LAYER_OK`; `LAYER_INVALID`
/// (NULL).
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn layer_config_on_log(
    config: *mut layer_config_t,
    callback: layer_log_cb,
    userdata: *mut c_void,
    destroy: layer_destroy_cb,
    error: *mut *mut layer_error_t,
) -> layer_status_t {
    guard(error, || {
        // SAFETY: the caller passes NULL or a config of its own.
        let config = unsafe { handle::borrow_mut(config, "config") }?;
        let callback = LogCallback::new(callback, userdata, destroy, "callback")?;
        config.hooks.on_log = Some(Arc::new(callback));
        Ok(())
    })
}

/// Sets who gets the state changes of layers that are made from this config. All that is said at
/// `layer_config_on_log` holds here.
///
/// `config`: changed. `callback`: not NULL. `userdata`, `destroy`: see the conventions. Never
/// blocks; one thread at a time; allowed from a callback. Returns `LAYER_OK`; `LAYER_INVALID`
/// (NULL).
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn layer_config_on_state(
    config: *mut layer_config_t,
    callback: layer_state_cb,
    userdata: *mut c_void,
    destroy: layer_destroy_cb,
    error: *mut *mut layer_error_t,
) -> layer_status_t {
    guard(error, || {
        // SAFETY: the caller passes NULL or a config of its own.
        let config = unsafe { handle::borrow_mut(config, "config") }?;
        let callback = StateCallback::new(callback, userdata, destroy, "callback")?;
        config.hooks.on_state = Some(Arc::new(callback));
        Ok(())
    })
}

/// Sets who is told when channels of layers that are made from this config are isolated, what they
/// lose by it, and when that ends (see `layer_isolation_t`). All that is said at `layer_config_on_log`
/// holds here.
///
/// `config`: changed. `callback`: not NULL. `userdata`, `destroy`: see the conventions. Never
/// blocks; one thread at a time; allowed from a callback. Returns `LAYER_OK`; `LAYER_INVALID`
/// (NULL).
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn layer_config_on_isolation(
    config: *mut layer_config_t,
    callback: layer_isolation_cb,
    userdata: *mut c_void,
    destroy: layer_destroy_cb,
    error: *mut *mut layer_error_t,
) -> layer_status_t {
    guard(error, || {
        // SAFETY: the caller passes NULL or a config of its own.
        let config = unsafe { handle::borrow_mut(config, "config") }?;
        let callback = IsolationCallback::new(callback, userdata, destroy, "callback")?;
        config.hooks.on_isolation = Some(Arc::new(callback));
        Ok(())
    })
}

/// Frees a config. Layers that were made from it are not touched.
///
/// `config`: taken; NULL does nothing. Never blocks; any thread; allowed from a callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layer_config_free(config: *mut layer_config_t) {
    guard_value((), || {
        // SAFETY: the caller passes NULL or a config from `layer_config_new` and gives it up.
        drop(unsafe { handle::take(config) });
    });
}
