# Everyday commands; CONTRIBUTING.md explains them.

.PHONY: build setup check test

build:
	go build -o bin/ ./cmd/...

# Installs what is missing on Debian and Ubuntu; elsewhere says what to install.
setup: build
	bin/seatrial doctor --install

# Formatting, vet, linter.
check:
	@unformatted="$$(gofmt -l .)"; if [ -n "$$unformatted" ]; then echo "gofmt -w $$unformatted"; exit 1; fi
	go vet ./...
	go tool staticcheck ./...

# All tests, race detector on. Those of qemu and harness run real machines.
test: setup
	go test -race ./...
