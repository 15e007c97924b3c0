// Package component makes the component images from which an image is put
// together (kernel, init, runc, containerd, getty and others) out of Debian
// packages and Go programs, and puts them into a local store under the names
// that a YAML file uses: "seatrial/kernel", "seatrial/init" and so on.
//
// It needs apt-get and dpkg-deb, but no root, Docker or registry: packages are
// resolved and fetched in a private apt root with an empty status file, so that
// a foreign architecture works as well as the host's own.
//
// A component is rebuilt only when an input changed. What it was made of is
// recorded with it: name, version and digest of every input.
package component
