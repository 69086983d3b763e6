# Every verb is a thin line over ordinary commands; `make help` lists them.
# `make up` and `make test` do all the set-up that a fresh Debian machine with Go needs.

SHELL    := /bin/bash
GO       ?= go
SUDO     := $(if $(filter 0,$(shell id -u)),,sudo)
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
PORT     ?= 8080
LDFLAGS  := -s -w -X github.com/cleatlabs/cleat/internal/version.version=$(VERSION)
SHIMTAGS := seccomp netgo osusergo
PACKAGES := gcc libc6-dev libseccomp-dev pkg-config
TESTPKGS := $(PACKAGES) busybox-static crun runc debootstrap btrfs-progs iproute2 procps
RACEPKGS := ./engine/... ./oci/... ./client/... ./internal/...

export CGO_ENABLED := 0

.PHONY: help up down build test race e2e lint fmt bench clean deps testdeps cross

help: ## list the verbs
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t12

deps: # Debian packages that the build needs
	@tools/deps $(PACKAGES)

testdeps: # Debian packages that the tests need
	@tools/deps $(TESTPKGS)
	@command -v docker >/dev/null || tools/deps docker.io

build: deps ## build cleat, cleatd and cleat-shim into bin/
	$(GO) build -trimpath -ldflags "$(LDFLAGS)" -o bin/cleat ./cmd/cleat
	$(GO) build -trimpath -ldflags "$(LDFLAGS)" -o bin/cleatd ./cmd/cleatd
	CGO_ENABLED=1 $(GO) build -trimpath -tags "$(SHIMTAGS)" -ldflags "$(LDFLAGS) -linkmode external -extldflags -static" -o bin/cleat-shim ./cmd/cleat-shim

bin/demo.tar: $(wildcard examples/demo/*.go examples/demo/image/*.go)
	$(GO) build -trimpath -ldflags "-s -w" -o bin/demo ./examples/demo
	$(GO) run ./examples/demo/image -program bin/demo -o bin/demo.tar

up: build bin/demo.tar ## build, start the daemon in the background and run the demo
	$(SUDO) bin/cleatd --detach
	$(SUDO) bin/cleat load --quiet --input bin/demo.tar
	-$(SUDO) bin/cleat rm --force demo >/dev/null 2>&1
	$(SUDO) bin/cleat run --detach --name demo --publish $(PORT):8080 --volume demo-data:/data --restart unless-stopped cleat/demo
	@PORT=$(PORT) SUDO="$(SUDO)" tools/welcome

down: ## stop the daemon and remove everything that it kept
	$(SUDO) bin/cleatd reset --yes

test: testdeps build bin/demo.tar ## run every test, as root
	$(SUDO) env "PATH=$(PATH)" CGO_ENABLED=0 $(GO) vet ./...
	$(SUDO) env "PATH=$(PATH)" CGO_ENABLED=0 $(GO) test -timeout 40m ./...
	@$(MAKE) --no-print-directory race cross

race: testdeps # the rooms with goroutines, under the race detector
	$(SUDO) env "PATH=$(PATH)" CGO_ENABLED=1 $(GO) test -race -timeout 40m -short $(RACEPKGS)

cross: # the client builds for other systems
	GOOS=darwin $(GO) build -o /dev/null ./cmd/cleat
	GOOS=windows $(GO) build -o /dev/null ./cmd/cleat

lint: ## run golangci-lint with the house rules
	$(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.6.1 run ./...

fmt: ## format every Go file
	gofmt -w $$(git ls-files '*.go')

bench: build testdeps bin/demo.tar ## our figures beside every peer that is installed
	$(SUDO) env "PATH=$(PATH)" $(GO) run ./test/bench

clean: # remove what the build made
	rm -rf bin
