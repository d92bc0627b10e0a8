//! Generates `include/channel_layer.h` from `src/ffi` and names the shared library.

use std::env;
use std::path::PathBuf;

/// What a program needs before the first declaration.
fn preamble() -> String {
    let part = |name| env::var(name).unwrap_or_default();
    format!(
        "\n// The version of this header; `layer_version` gives that of the library that is loaded.\n\
         #define LAYER_VERSION \"{}\"\n\
         // The first number of `LAYER_VERSION`.\n\
         #define LAYER_VERSION_MAJOR {}\n\
         // The second number of `LAYER_VERSION`.\n\
         #define LAYER_VERSION_MINOR {}\n\
         // The third number of `LAYER_VERSION`.\n\
         #define LAYER_VERSION_PATCH {}\n\n\
         #if defined(__GNUC__) || defined(__clang__)\n\
         // On functions whose result says whether they did anything: GCC and Clang warn where it is\n\
         // not used.\n\
         #define LAYER_MUST_USE __attribute__((warn_unused_result))\n\
         #else\n#define LAYER_MUST_USE\n#endif",
        part("CARGO_PKG_VERSION"),
        part("CARGO_PKG_VERSION_MAJOR"),
        part("CARGO_PKG_VERSION_MINOR"),
        part("CARGO_PKG_VERSION_PATCH"),
    )
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let header = root.join("include/channel_layer.h");

    let mut config = cbindgen::Config::from_file(root.join("cbindgen.toml"))?;
    config.after_includes = Some(preamble());
    cbindgen::Builder::new()
        .with_crate(&root)
        .with_config(config)
        .generate()?
        .write_to_file(&header);

    for input in [
        "src/ffi",
        "cbindgen.toml",
        "build.rs",
        "include/channel_layer.h",
    ] {
        println!("cargo:rerun-if-changed={input}");
    }

    // No ABI break until 1.0: a program that was linked with any 0.x finds its functions here.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libchannel_layer.so.0");
    // Our threads run on after a dlclose, so the code must stay.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    Ok(())
}
