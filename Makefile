# Everyday commands; CONTRIBUTING.md explains them.

.PHONY: build check test unit

build:
	go build -o bin/ ./cmd/...

# Formatting, vet, linter.
check:
	@unformatted="$$(gofmt -l .)"; if [ -n "$$unformatted" ]; then echo "gofmt -w $$unformatted"; exit 1; fi
	go vet ./...
	go tool staticcheck ./...

test: unit

# Unit tests, race detector on.
unit:
	go test -race ./...
