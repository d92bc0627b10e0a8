//go:build channel_layer_static

package channellayer

// With the build tag channel_layer_static the program holds the static library, and looks for none
// when it runs. The linker would prefer the shared library of the same name, so the archive is named
// as a file, before the flags of pkg-config. The shared library, which these name too, is then needed
// by nothing.

/*
#cgo pkg-config: --static channel_layer
#cgo LDFLAGS: -l:libchannel_layer.a -Wl,--as-needed
*/
import "C"
