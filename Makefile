# Everyday commands; CONTRIBUTING.md explains them.

.PHONY: build setup qualify bench check test

build:
	go build -o bin/ ./cmd/...

# Installs what the tests need on Debian and Ubuntu; elsewhere says what to install.
setup: build
	bin/seatrial doctor --install --tests

# Installs what is missing, builds the images, runs the suite, reports to out/latest.
# Other media than direct boot, and specs of devices and of faults on demand, are about
# more than the image that ships: make qualify ARGS='--label-filter ""' has them too.
qualify: build
	bin/seatrial qualify --label-filter '!media && !devices' $(ARGS)

# Figures to out/bench.json; make bench BENCH=boot for one group.
bench: build
	bin/seatrial bench $(BENCH)

# Formatting, vet, linter.
check:
	@unformatted="$$(gofmt -l .)"; if [ -n "$$unformatted" ]; then echo "gofmt -w $$unformatted"; exit 1; fi
	go vet ./...
	go tool staticcheck ./...

# All tests: those of the packages with the race detector on, then the whole suite, as
# many specs at a time as CPUs. Some packages run real machines and wait for them half
# of the time, so half more packages run at once than there are CPUs; the one that
# takes longest is named first, so that it does not end alone.
test: setup
	go test -race -p $$(($$(nproc) * 3 / 2)) ./images $$(go list ./... | grep -v '/cases$$')
	bin/seatrial qualify
